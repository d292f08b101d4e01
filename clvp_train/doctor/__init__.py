"""`python -m clvp_train.doctor`: what is there of all that training needs, and how to mend what is not.

It loads no library itself, as it is asked when one of them is broken; `probe.py` does so in processes of its own.
"""
