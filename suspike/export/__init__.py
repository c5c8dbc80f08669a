"""Lower a Graph to files: NIR networks, gate schedules, event files, and bundles that can be verified."""

from suspike.export._trains import Recording as Recording
from suspike.export.aedat import read_aedat as read_aedat
from suspike.export.aedat import write_aedat as write_aedat
from suspike.export.bundle import write_bundle as write_bundle
from suspike.export.nir import read_nir as read_nir
from suspike.export.nir import to_nir as to_nir
from suspike.export.nir import write_nir as write_nir
from suspike.export.schedule import Schedule as Schedule
from suspike.export.schedule import open_intervals as open_intervals
from suspike.export.schedule import read_schedule as read_schedule
from suspike.export.schedule import table_of_intervals as table_of_intervals
from suspike.export.schedule import write_schedule as write_schedule
from suspike.export.sonata import read_sonata as read_sonata
from suspike.export.sonata import write_sonata as write_sonata
from suspike.export.streaming import Stream as Stream
from suspike.export.streaming import stream_sonata as stream_sonata
from suspike.export.verify import Check as Check
from suspike.export.verify import Verification as Verification
from suspike.export.verify import verify as verify
