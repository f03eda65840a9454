"""Pulumi components: each takes a part of the plan and creates its resources. No arithmetic, no knowledge of versions."""
