"""Train the classifier inside the extractor `cls-fashion-mnist` and write its file; its SHA-256 goes into the plugin.

    python tools/train_cls_fashion_mnist.py [--epochs 6] [--seed 0] [--out FILE]

Only the 60,000 training images of Fashion-MNIST and their labels are used; the 10,000 test images give the accuracy that
the file states. Equal threads, versions and seed give an equal file.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from ganzoo_plugins.datasets.fashion_mnist import fashion_mnist
from ganzoo_plugins.extractors.cls_fashion_mnist import CLASSES, DIM, FILE, PLAN, network
from safetensors.torch import save
from torch import Tensor, nn

BATCH = 128
PEAK = 3e-3  # learning rate


class Trained(nn.Module):
    """The network with a batch norm after each convolution and some dropout: what is folded or left out afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(a, b, 3, stride=s, padding=1, bias=False) for a, b, s in PLAN])
        self.norms = nn.ModuleList([nn.BatchNorm2d(b) for _, b, _ in PLAN])
        self.features, self.logits = nn.Linear(PLAN[-1][1], DIM), nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.relu(norm(conv(x)))
        return self.logits(F.dropout(F.relu(self.features(x.mean((2, 3)))), 0.2, self.training))

    def folded(self) -> nn.ModuleDict:
        """Return the same function without batch norm."""
        plain = network()
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            gain = norm.weight / (norm.running_var + norm.eps).sqrt()
            plain[f"conv{number}"].weight.data = (conv.weight * gain[:, None, None, None]).detach()
            plain[f"conv{number}"].bias.data = (norm.bias - norm.running_mean * gain).detach()
        plain["features"].load_state_dict(self.features.state_dict())
        plain["logits"].load_state_dict(self.logits.state_dict())
        return plain.eval()


def shaken(images: Tensor, source: torch.Generator) -> Tensor:
    """Return images mirrored by chance and moved by up to two pixels, all of a batch alike."""
    if torch.rand((), generator=source) < 0.5:
        images = images.flip(3)
    down, right = (int(torch.randint(-2, 3, (), generator=source)) for _ in range(2))
    return images.roll((down, right), (2, 3))  # the border is black, so nothing comes in from the other side


def train(epochs: int, seed: int) -> Trained:
    """Return the trained network."""
    torch.manual_seed(seed)
    source = torch.Generator().manual_seed(seed)
    data = fashion_mnist(split="train", labels=True)
    assert data.labels is not None
    images, labels = data.samples.float() / 127.5 - 1, data.labels
    net = Trained().to(memory_format=torch.channels_last)
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), PEAK, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK, total_steps=steps)
    for epoch in range(epochs):
        started, total = time.monotonic(), 0.0
        for index in torch.randperm(len(images), generator=source).split(BATCH)[: len(images) // BATCH]:
            x = shaken(images[index], source).to(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = net(x)
            loss = F.cross_entropy(logits.float(), labels[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"epoch {epoch + 1}: loss {total / (len(images) // BATCH):.4f}, {time.monotonic() - started:.0f} s", flush=True
        )
    return net.eval()


@torch.no_grad()
def outputs(net: nn.ModuleDict, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return unscaled features and logits."""
    found = []
    for x in (images.float() / 127.5 - 1).split(500):
        for number in range(len(PLAN)):
            x = F.relu(net[f"conv{number}"](x))
        x = F.relu(net["features"](x.mean((2, 3))))
        found.append((x, net["logits"](x)))
    return torch.cat([x for x, _ in found]), torch.cat([y for _, y in found])


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "plugins/extractors/weights" / FILE)
    asked = parser.parse_args()
    net = train(asked.epochs, asked.seed).folded()
    test = fashion_mnist(split="test", labels=True)
    accuracy = float((outputs(net, test.samples)[1].argmax(1) == test.labels).double().mean())
    features = outputs(net, fashion_mnist(split="train").samples)[0]
    scale = features.double().var(0).mean().rsqrt().float().reshape(1)
    state = {name: value.contiguous() for name, value in sorted(net.state_dict().items())}
    facts = {
        "test_accuracy": round(accuracy, 4),
        "command": f"python tools/train_cls_fashion_mnist.py --epochs {asked.epochs} --seed {asked.seed}",
        "data": "the 60,000 training images of Fashion-MNIST and their labels",
        "torch": torch.__version__,
    }
    content = save({**state, "scale": scale}, metadata={"ganzoo.extractor": json.dumps(facts, sort_keys=True)})
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_bytes(content)
    print(f"{accuracy:.2%} of the test images, {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
