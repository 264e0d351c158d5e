"""Tools that run a model's programs in the cage: a plugin of its own, since an agent that may use `tools` should not get these unasked."""
