"""The kubelet of the simulated GPU machines: it runs the programs of serving pods as processes of this machine.

KWOK plays every other pod. A pod that serves a model is not a matter of timers: its engine and its gate are started, probed,
restarted and ended as a kubelet would, and what they say becomes the pod's status.
"""
