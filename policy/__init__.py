"""The CrossGuard pack: every rule of `serving.rules` as a policy of Pulumi's, run by Pulumi in an environment of its own."""
