"""Data for spiking networks, as plain numpy arrays: event-camera recordings, real and simulated, and their binning.

`load` reads N-MNIST; `digits_as_nmnist` makes a small set of the same layout out of scikit-learn's digits, through
`saccade_events`, an event camera; `bin_events` turns recordings into the event lists that a network takes.
"""

from suspike_datasets.binning import BinnedEvents as BinnedEvents
from suspike_datasets.binning import bin_events as bin_events
from suspike_datasets.camera import saccade_events as saccade_events
from suspike_datasets.digits import digits_as_nmnist as digits_as_nmnist
from suspike_datasets.nmnist import load as load
from suspike_datasets.nmnist import read_recording as read_recording
from suspike_datasets.nmnist import write_recording as write_recording
