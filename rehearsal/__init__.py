"""The whole stack on a real Kubernetes control plane, with simulated GPU nodes and a stand-in for AWS."""
