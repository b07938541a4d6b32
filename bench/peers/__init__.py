"""The parts of bench/cpu_peers.py and bench/ablation.py: what is compared, how it is installed, run, measured, shown.

What runs in Lamella's own Python imports nothing but Lamella and the standard library; what needs a peer (`engine_*`,
`make_*`, `picture`) runs in the environment that `environment` sets up.
"""
