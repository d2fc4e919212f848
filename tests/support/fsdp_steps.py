"""Three steps of a sharded model; run by torchrun, it prints each step's loss and gradient norm.

torchrun --nproc-per-node 2 fsdp_steps.py RECIPE
"""

import json
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from hf_mhex.training.job import prepare
from hf_mhex.training.optimisation import freeze
from hf_mhex.training.recipe import load_recipe


def steps(path, shard):
    """Three steps over the same eight rows, which the processes share."""
    recipe = load_recipe(path)
    job = prepare(recipe, 0)
    model, still = job.model, freeze(job.model, recipe.optimisation)
    if shard:
        dist.init_process_group("gloo")
        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for module in list(model.modules()):
            if type(module).__name__ in model._no_split_modules:
                fully_shard(module, mesh=mesh)
        fully_shard(model, mesh=mesh)
    rank, processes = (dist.get_rank(), dist.get_world_size()) if shard else (0, 1)
    share = 8 // processes
    batch = job.collate([job.train[row] for row in range(rank * share, rank * share + share)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    found = []
    for _ in range(3):
        model.train()
        for norm in still:
            norm.eval()
        loss = model(**batch, num_items_in_batch=torch.tensor(8)).loss
        (loss * processes).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        optimizer.step()
        optimizer.zero_grad()
        total = loss.detach().clone()
        if shard:
            dist.all_reduce(total)
            norm = norm.full_tensor()
        found.append((float(total), float(norm)))
    return rank, found


if __name__ == "__main__":
    rank, found = steps(sys.argv[1], shard=True)
    if rank == 0:
        print("FOUND " + json.dumps(found))
