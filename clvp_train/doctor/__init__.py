"""`python -m clvp_train.doctor`: checks the installation and shows how to fix what is missing or broken.

The modules import the standard library only, because they run when a library is broken; `loading` imports the others in
subprocesses.
"""
