"""natgw: a container network in user space: a learning bridge, a gateway on it, NAPT, published ports.

Layers, each importing only itself and those to its left (tests/unit/test_layers.py holds them to it):

    wire <- tables <- datapath <- host <- control <- api <- cli

`natgw.errors` is everybody's. `natgw.cni`, the plugin that engines call, stands apart and imports nothing but itself.
"""

__version__ = "0.1.0"
