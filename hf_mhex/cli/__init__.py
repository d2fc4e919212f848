"""What does the `mhex` command offer?"""
