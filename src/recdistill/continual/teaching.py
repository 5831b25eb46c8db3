"""Stage 3: each member of the ensemble on a block, with its own memory and with what the student's side knows.

Lee et al., CCD, KDD 2024, arXiv:2405.19046. MF and LightGCN: BPR + LWC-KD with personal weights, and a pass that
replays. Mult-VAE: likelihood + divergence from its own past, and pseudo-labels.

Letters: U users, I items, d dims.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from recdistill.continual.entities import begun
from recdistill.continual.learning import Learned, Run, learn
from recdistill.continual.margin import begun_within
from recdistill.continual.multinomial import Multinomial
from recdistill.continual.neighbours import alike
from recdistill.continual.plain import base_pass, beside
from recdistill.continual.proxies import remembered
from recdistill.continual.replay import Remembered
from recdistill.continual.stages import cut, remembering, replayed
from recdistill.continual.vae import Past, imputing
from recdistill.models.vae import VAE
from recdistill.objective import Objective, Pass
from recdistill.terms.graph_contrast import Clusters, GraphContrast, Personal

if TYPE_CHECKING:
    from recdistill.continual.replay import Vectors
    from recdistill.continual.settings import Contrast, Teach
    from recdistill.continual.snapshot import Snapshot
    from recdistill.continual.stages import Sources
    from recdistill.data.blocks import Block
    from recdistill.data.csr import Csr
    from recdistill.objective import Term

__all__ = ["contrasted", "update_teacher"]


def update_teacher(
    block: Block,
    before: Csr | None,
    member: Snapshot,
    sources: Sources,
    settings: Teach,
    *,
    avoid: Csr | None = None,
    run: Run,
) -> Learned:
    """A member on new data; with no sources it is the ensemble's own continual baseline.

    Args:
        block: k.
        before: the training pairs of block k - 1, over which the member remembers.
        member: as it was after block k - 1.
        sources: the proxies, and the student as updated on this block.
        settings: how.
        avoid: what negatives leave alone, see `stages.believed`.
        run: seed, checkpoint, watches.
    """
    train = block.train.csr()
    start = begun(block, train, member, settings.initial, run)
    margin, (start, member) = begun_within(start, train, settings.margin, member)
    model = start.model()
    c = settings.replay
    asked = [
        (margin.within(remembered(source)), n)
        for source, n in (
            (sources.stability, c.stability),
            (sources.plasticity, c.plasticity),
            (sources.student, c.student),
        )
    ]
    known = (block.n_users, block.n_items)
    size = settings.training.batch
    if isinstance(model, VAE):
        pairs = remembering(model, asked, c, known=known, distilled=None, train=train, before=before, seed=run.seed)
        passes = [_of_vae(model, start, member=member, block=block, settings=settings, pairs=pairs, run=run)]
        return learn(start, model, passes, settings.training, train=train, valid=block.valid, run=run)
    whole = before is not None and settings.contrast.weight > 0
    base = base_pass(start, block.train, settings.training, avoid=avoid, run=run, whole=whole)
    if before is not None and whole:
        more = contrasted(remembered(member), before, settings.contrast, seed=run.seed)
        base = beside(base, settings.training, more)
    replay = replayed(
        model, asked, c, known=known, distilled=None, train=train, before=before, size=size, seed=run.seed
    )
    passes = [base, *replay]
    return learn(start, model, passes, settings.training, train=train, valid=block.valid, run=run, whole=whole)


def contrasted(old: Vectors | None, before: Csr, settings: Contrast, *, seed: int) -> dict[str, tuple[float, Term]]:
    """The terms of LWC-KD by name, with their weights, and PIW's where it is on.

    Args:
        old: the served vectors before the block, (U', d) and (I', d).
        before: U' x I' of block k - 1, the graph that is remembered.
        settings: weights, temperature, degrees.
        seed: of the centres and the choice of anchors.
    """
    if old is None:
        return {}
    user, item = (torch.from_numpy(np.array(each)) for each in old)
    graph = before
    columns = graph.transposed()
    personal = Personal(user, clusters=settings.clusters, seed=seed) if settings.personal else None
    c = settings

    def term(anchors: torch.Tensor, neighbours: Csr, side: Any, other: Any, own: Personal | None = None) -> Term:  # noqa: ANN401
        return GraphContrast(
            anchors,
            neighbours,
            side=side,
            other=other,
            temperature=c.temperature,
            anchors=c.anchors,
            how=c.how,
            reach=c.reach,
            personal=own,
            seed=seed,
        )

    terms: dict[str, tuple[float, Term]] = {
        "user_item": (c.weight, term(user, graph, "user", "item", personal)),
        "item_user": (c.weight, term(item, columns, "item", "user")),
        "user_user": (c.weight, term(user, alike(graph, degree=c.neighbours), "user", "user", personal)),
        "item_item": (c.weight, term(item, alike(columns, degree=c.neighbours), "item", "item")),
    }
    if personal is not None:
        terms["clusters"] = (c.cluster_weight, Clusters(personal, how=c.how))
    return terms


def _of_vae(
    net: VAE,
    start: Snapshot,
    *,
    member: Snapshot,
    block: Block,
    settings: Teach,
    pairs: Remembered | None,
    run: Run,
) -> Pass:
    base = base_pass(start, block.train, settings.training, avoid=None, run=run)
    terms: dict[str, Any] = {name: (1.0, term) for name, term in base.objective.named_terms()}
    if settings.vae_weight and block.old_users:
        head = member.standing_on(cut(block.train.csr(), member.n_users, member.n_items))
        own = remembered(head)
        if own is not None:
            terms["past"] = (settings.vae_weight, Past(own, seed=run.seed))
    if pairs is None:
        return Pass(base.name, base.batches, Objective(**terms))
    likelihood = terms["base"][1]
    if isinstance(likelihood, Multinomial):
        likelihood.memory = pairs.term  # so that a killed run goes on with the pairs it had drawn
    begin = imputing(net, start.context, pairs, settings.imputed)
    return Pass(base.name, base.batches, Objective(**terms), begin=begin)
