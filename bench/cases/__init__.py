"""What is measured, and what each figure has to reach: the only place where a must or an aim is written down.

Every figure is a ratio of which more is better: the time of dense PyTorch over ours, unless a case says otherwise.
"""
