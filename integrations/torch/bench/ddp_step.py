#!/usr/bin/env python3
"""How long communication takes in a step of data-parallel training, with gloo and with railccl.

    PYTHONPATH=build/python integrations/torch/bench/ddp_step.py --ranks 2,4 --repeats 15

Every rank is a process with both backends and a DDP model on each. Each repeat gives every measurement
to both, one after the other, beginning with another one each time. A sample is the slowest rank's
time; what is printed are medians. Losses of both must agree.

  communication  the step's all-reduces alone: the gradients' buckets, as DDP cuts them, at once
  step           forward, backward with all-reduces beside it, optimizer
  exposed        step, less the same without all-reduces (no_sync)"""
import argparse
import datetime
import os
import socket
import statistics
import subprocess
import sys
import time

BACKENDS = ("gloo", "railccl")


def rank_main(rank, ranks, port, repeats, width, layers):
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
    import railccl_torch  # noqa: F401: registers the backend
    torch.set_num_threads(1)
    dist.init_process_group("railccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank,
                            world_size=ranks, timeout=datetime.timedelta(seconds=120))
    groups = {"railccl": dist.group.WORLD, "gloo": dist.new_group(backend="gloo")}

    class Transformer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = torch.nn.Embedding(1000, width)
            layer = torch.nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0,
                                                     batch_first=True)
            self.body = torch.nn.TransformerEncoder(layer, layers)
            self.head = torch.nn.Linear(width, 1000)

        def forward(self, text):
            return self.head(self.body(self.tokens(text)))

    models, optimizers, buckets = {}, {}, []

    def note_buckets(group, bucket):  # a hook of DDP's, for the step in which it is looked at
        buckets.append(bucket.buffer().numel())
        future = torch.futures.Future()
        future.set_result(bucket.buffer())
        return future

    for name in BACKENDS:
        torch.manual_seed(1)
        models[name] = DistributedDataParallel(Transformer(), process_group=groups[name])
        optimizers[name] = torch.optim.SGD(models[name].parameters(), lr=0.05)
    text = torch.randint(0, 1000, (2, 33), generator=torch.Generator().manual_seed(rank))

    def loss_of(model):
        output = model(text[:, :-1])
        return torch.nn.functional.cross_entropy(output.flatten(0, 1), text[:, 1:].flatten())

    def step(name, synchronised):
        model = models[name]
        if synchronised:
            loss = loss_of(model)
            loss.backward()
        else:
            with model.no_sync():
                loss = loss_of(model)
                loss.backward()
        optimizers[name].step()
        optimizers[name].zero_grad(set_to_none=False)
        return loss.item()

    torch.manual_seed(1)
    watched = DistributedDataParallel(Transformer())
    watched.register_comm_hook(None, note_buckets)
    for _ in range(2):  # DDP cuts its buckets anew after the first step
        buckets.clear()
        loss_of(watched).backward()
    del watched
    memory = [torch.ones(count) for count in buckets]

    def communicate(name):
        works = [dist.all_reduce(bucket, group=groups[name], async_op=True) for bucket in memory]
        for work in works:
            work.wait()
        for bucket in memory:
            bucket.fill_(1)

    measured = {"communication": communicate, "step": lambda name: step(name, True),
                "without": lambda name: step(name, False)}
    samples = {(what, name): [] for what in measured for name in BACKENDS}
    losses = {name: [] for name in BACKENDS}
    for repeat in range(repeats + 2):
        order = BACKENDS if repeat % 2 else tuple(reversed(BACKENDS))
        for what, run in measured.items():
            # What follows steps without all-reduces must not differ between ranks.
            kept = {name: [p.detach().clone() for p in models[name].parameters()]
                    for name in BACKENDS} if what == "without" else None
            for name in order:
                dist.barrier()
                started = time.perf_counter()
                result = run(name)
                took = torch.tensor([time.perf_counter() - started], dtype=torch.float64)
                dist.all_reduce(took, dist.ReduceOp.MAX)
                if repeat >= 2:  # the first are for warming up
                    samples[what, name].append(took.item())
                if what == "step":
                    losses[name].append(result)
            for name in kept or ():
                with torch.no_grad():
                    for parameter, value in zip(models[name].parameters(), kept[name]):
                        parameter.copy_(value)
    apart = max(abs(a - b) for a, b in zip(losses["gloo"], losses["railccl"]))
    if apart > 1e-3:
        raise SystemExit(f"losses differ by {apart}")
    if rank == 0:
        median = {key: 1e3 * statistics.median(values) for key, values in samples.items()}
        print(f"{ranks} ranks, {sum(buckets)} parameters in {len(buckets)} buckets, "
              f"{len(losses['gloo'])} steps, losses at most {apart:.1e} apart")
        print(f"{'ms':>15} {'gloo':>9} {'railccl':>9} {'ratio':>7}")
        for what in ("communication", "step", "exposed"):
            row = [median["step", name] - median["without", name] if what == "exposed"
                   else median[what, name] for name in BACKENDS]
            print(f"{what:>15} {row[0]:9.2f} {row[1]:9.2f} {row[0] / row[1]:7.2f}", flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main():
    options = argparse.ArgumentParser(description=__doc__,
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ranks", default="2,4")
    options.add_argument("--repeats", type=int, default=15)
    options.add_argument("--width", type=int, default=256, help="of the transformer")
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.rank is not None:
        rank_main(chosen.rank, int(chosen.ranks), chosen.port, chosen.repeats, chosen.width,
                  chosen.layers)
        return
    for ranks in chosen.ranks.split(","):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        started = [subprocess.Popen(
            [sys.executable, __file__, "--ranks", ranks, "--rank", str(rank), "--port", str(port),
             "--repeats", str(chosen.repeats), "--width", str(chosen.width), "--layers",
             str(chosen.layers)], env=dict(os.environ, OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore"))
            for rank in range(int(ranks))]
        if any([process.wait() for process in started]):
            sys.exit(1)


if __name__ == "__main__":
    main()
