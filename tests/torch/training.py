"""Training: the same numbers as with gloo."""
import copy

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from common import near, same, start

gloo = None


def begin(rank, ranks, meeting):
    global gloo
    start(rank, ranks, meeting)
    gloo = dist.new_group(backend="gloo")


class Transformer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = torch.nn.Embedding(50, 32)
        layer = torch.nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.body = torch.nn.TransformerEncoder(layer, 2)
        self.head = torch.nn.Linear(32, 50)

    def forward(self, text):
        return self.head(self.body(self.tokens(text)))


def train(group, optimizer_of, steps=4, hook=None, accumulate=False, **options):
    """The losses of this rank and its parameters. Small buckets: many all-reduces beside backward."""
    torch.manual_seed(1 + dist.get_rank())  # DDP's first broadcast has to make them alike
    model = DistributedDataParallel(Transformer(), process_group=group, bucket_cap_mb=0.02, **options)
    if hook is not None:
        model.register_comm_hook(group, hook)
    optimizer = optimizer_of(model)
    generator = torch.Generator().manual_seed(7 + dist.get_rank())
    losses = []
    for step in range(steps):
        text = torch.randint(0, 50, (4, 12), generator=generator)
        with model.no_sync() if accumulate and step % 2 == 0 else torch.enable_grad():
            output = model(text[:, :-1])
            loss = torch.nn.functional.cross_entropy(output.flatten(0, 1), text[:, 1:].flatten())
            loss.backward()
        if accumulate and step % 2 == 0:
            continue
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return torch.tensor(losses), [parameter.detach() for parameter in model.parameters()]


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=1e-2)


def compare(**how):
    ours, theirs = train(dist.group.WORLD, **how), train(gloo, **how)
    near(ours[0], theirs[0])
    for mine, other in zip(ours[1], theirs[1]):
        near(mine, other, 1e-4)
    for parameter in ours[1]:  # and all ranks have the same
        both = [torch.zeros_like(parameter) for _ in range(dist.get_world_size())]
        dist.all_gather(both, parameter)
        same(both[0], both[1])
    assert len(set(ours[0].tolist())) > 1
    return ours


def check_data_parallel_has_gloos_losses():
    compare(optimizer_of=adam)


def check_data_parallel_variants():
    compare(optimizer_of=adam, steps=2, find_unused_parameters=True)
    compare(optimizer_of=adam, steps=2, gradient_as_bucket_view=True, static_graph=True)
    compare(optimizer_of=adam, accumulate=True)
    compare(optimizer_of=adam, steps=2, hook=default_hooks.allreduce_hook)
    compare(optimizer_of=adam, steps=2, hook=default_hooks.fp16_compress_hook)


def check_uneven_inputs():
    """Ranks with different numbers of batches, by DDP's join."""
    def weights(group):
        torch.manual_seed(3)
        model = DistributedDataParallel(torch.nn.Linear(4, 1), process_group=group)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with model.join():
            for i in range(2 + 2 * dist.get_rank()):
                model(torch.full((2, 4), float(i))).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
        return model.module.weight.detach()
    near(weights(dist.group.WORLD), weights(gloo))


def check_optimizer_state_in_shards():
    def sharded(group):
        return lambda model: ZeroRedundancyOptimizer(
            model.parameters(), optimizer_class=torch.optim.Adam, lr=1e-2, process_group=group)
    ours = train(dist.group.WORLD, sharded(dist.group.WORLD))
    whole = train(gloo, adam)
    near(ours[0], whole[0])
    for mine, other in zip(ours[1], whole[1]):
        near(mine, other, 1e-4)


def check_parameters_in_shards():
    """Every rank has a part of all parameters: gathered for a step, gradients reduced and scattered."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    torch.manual_seed(5)
    whole = torch.nn.Linear(16, 8)
    model = copy.deepcopy(whole)
    flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    shard = flat.chunk(ranks)[rank].clone()
    inputs = [torch.randn(6, 16, generator=torch.Generator().manual_seed(r)) for r in range(ranks)]
    for _ in range(3):
        full = torch.empty(ranks * shard.numel())
        dist.all_gather_into_tensor(full, shard)
        torch.nn.utils.vector_to_parameters(full, model.parameters())
        model.zero_grad()
        model(inputs[rank]).pow(2).mean().backward()
        mine = torch.empty_like(shard)
        dist.reduce_scatter_tensor(mine, torch.cat([p.grad.flatten() for p in model.parameters()]),
                                   dist.ReduceOp.AVG)
        shard -= 0.1 * mine
        whole.zero_grad()
        (sum(whole(one).pow(2).mean() for one in inputs) / ranks).backward()
        with torch.no_grad():
            for parameter in whole.parameters():
                parameter -= 0.1 * parameter.grad
    expected = torch.cat([parameter.detach().flatten() for parameter in whole.parameters()])
    near(shard, expected.chunk(ranks)[rank])
