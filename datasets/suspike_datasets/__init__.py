"""Data for spiking networks, as plain numpy arrays: recordings of cameras and cochleas, real and simulated, in steps.

`load` reads a data set, `bin_events` turns recordings into the event lists that a network takes, `load_binned` does
both and keeps what it made. `encode_images` and `encode_words` make such sets out of images and sounds, through
`saccade_events`, an event camera, and `cochlea_spikes`, a cochlea; `digits_as_nmnist` a small one out of scikit-learn's
digits; `rate_code`, `latency_code` and `delta_code` make spikes of arrays.
"""

from suspike_datasets.binning import BinnedEvents as BinnedEvents
from suspike_datasets.binning import bin_events as bin_events
from suspike_datasets.camera import saccade_events as saccade_events
from suspike_datasets.catalog import BinnedSet as BinnedSet
from suspike_datasets.catalog import load as load
from suspike_datasets.catalog import load_binned as load_binned
from suspike_datasets.cochlea import cochlea_spikes as cochlea_spikes
from suspike_datasets.digits import digits_as_nmnist as digits_as_nmnist
from suspike_datasets.encoders import delta_code as delta_code
from suspike_datasets.encoders import latency_code as latency_code
from suspike_datasets.encoders import rate_code as rate_code
from suspike_datasets.images import encode_images as encode_images
from suspike_datasets.nmnist import read_recording as read_recording
from suspike_datasets.nmnist import write_recording as write_recording
from suspike_datasets.sets import EventSet as EventSet
from suspike_datasets.sets import from_recordings as from_recordings
from suspike_datasets.words import encode_words as encode_words
