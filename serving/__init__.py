"""What it takes to serve GLM-5.2 with vLLM on eight-GPU machines: pure knowledge, no Pulumi, no network, no clock."""
