"""Every optimizer in every mode, measured against what a user would write by hand.

``rows`` lists the optimizers, ``problem`` trains them, ``references`` does by hand what a mode
promises, ``refusals`` says what is refused and why, ``verdicts`` puts these together, and
``report`` writes docs/optimizers.md of it.
"""
