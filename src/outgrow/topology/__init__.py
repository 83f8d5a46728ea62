"""One file says which servers a site has; everything else is made from it.

`model` is the site as a value, `load` reads it from topology.toml, `settings`
gives Django its settings, `local` runs the whole site on one machine.
"""
