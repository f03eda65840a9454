"""LeaderWorkerSets in a rehearsal: the controller's own program, built from its Go module, and what can be said of its groups."""
