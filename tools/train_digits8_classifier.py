"""Train the digit classifier that counts the modes of `stacked-digits`, and write its file.

    python tools/train_digits8_classifier.py [--seed 0] [--out FILE]

1,500 of the 1,797 digits are learned from, the rest gives the accuracy that the file states. Equal versions and seed give
an equal file. SHA256SUMS beside it gets its line.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from ganzoo_plugins.datasets.stacked_digits import CLASSIFIER, classifier, digits
from safetensors.torch import save_file

EMBEDDED = Path(__file__).resolve().parent.parent / "plugins" / "datasets" / "embedded"
LEARNED = 1500
EPOCHS = 120
BATCH = 50


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=EMBEDDED / CLASSIFIER)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    source = torch.Generator().manual_seed(options.seed)
    images, labels = digits()
    samples = images.float().flatten(1) / 127.5 - 1
    order = torch.randperm(len(samples), generator=source)
    learned, held = order[:LEARNED], order[LEARNED:]
    net = classifier()
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - epoch / EPOCHS)
        for part in learned[torch.randperm(LEARNED, generator=source)].split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(net(samples[part]), labels[part]).backward()
            optimizer.step()
    with torch.no_grad():
        sure = net(samples).softmax(1).amax(1)
        right = net(samples).argmax(1) == labels
    accuracy = right[held].float().mean().item()
    print(f"held out: {accuracy:.2%} right, {(sure[held] > 0.9).float().mean():.2%} above 0.9")
    save_file(
        net.state_dict(), options.out, {"accuracy": f"{accuracy:.4f} on {len(held)} digits that it did not learn from"}
    )
    sums = options.out.with_name("SHA256SUMS")
    if sums.is_file():
        lines = [line for line in sums.read_text().splitlines() if not line.endswith(options.out.name)]
        lines.append(f"{hashlib.sha256(options.out.read_bytes()).hexdigest()}  {options.out.name}")
        sums.write_text("\n".join(sorted(lines, key=lambda line: line.split()[1])) + "\n")


if __name__ == "__main__":
    main()
