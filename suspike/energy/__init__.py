"""Energy: exact counts times sourced prices, on several cards, for a chip as it is and one that skips closed gates."""

from suspike.energy.bill import SCENARIOS as SCENARIOS
from suspike.energy.bill import Bill as Bill
from suspike.energy.bill import Line as Line
from suspike.energy.bill import Unpriced as Unpriced
from suspike.energy.bill import bill as bill
from suspike.energy.bill import dense_bill as dense_bill
from suspike.energy.bill import operations as operations
from suspike.energy.card import KINDS as KINDS
from suspike.energy.card import OPERATIONS as OPERATIONS
from suspike.energy.card import Card as Card
from suspike.energy.card import Price as Price
from suspike.energy.card import Sram as Sram
from suspike.energy.load import card_names as card_names
from suspike.energy.load import load_card as load_card
from suspike.energy.metrics import COMPETITIVE_SPIKES_PER_SYNAPSE as COMPETITIVE_SPIKES_PER_SYNAPSE
from suspike.energy.metrics import SpikesPerSynapse as SpikesPerSynapse
from suspike.energy.metrics import activation_sparsity as activation_sparsity
from suspike.energy.metrics import spikes_per_synapse as spikes_per_synapse
from suspike.energy.metrics import synaptic_operations as synaptic_operations
from suspike.energy.table import EnergyRow as EnergyRow
from suspike.energy.table import energy_caption as energy_caption
from suspike.energy.table import energy_rows as energy_rows
from suspike.energy.table import energy_table as energy_table
from suspike.energy.table import format_energy as format_energy
