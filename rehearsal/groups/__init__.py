"""LeaderWorkerSets in a rehearsal: the controller is not among the Go modules that are to be had, so its part is played here.

Written from its documented behaviour (LeaderWorkerSet v0.7.0): names, labels and variables of pods, one headless Service, groups
that are made anew as a whole, updates one group at a time. What is not played: a surge, subgroups, exclusive topologies.
"""
