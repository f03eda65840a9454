"""Programs that run inside pods, shipped through a ConfigMap. They import nothing of this repository."""
