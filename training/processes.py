"""End of a run of several processes: together, once all have done their work."""


def leave_together() -> None:
    """End the processes' group, for one that exits within it may abort and take a finished run down with it."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
