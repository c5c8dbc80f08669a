"""Read networks of other libraries into a Graph; without torch."""

from suspike.interop.nir import from_nir as from_nir
