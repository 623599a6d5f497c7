"""What is shown of a ranking, as JSON text: made here by the rules, or cut from the first page that the night made.

Text is written directly: objects made only to be serialised cost twice as much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from infra.blobs import FirstPage, Ranking, Record, decode_ranking
from infra.errors import CorruptArtifact
from infra.ranking_blob import encode_paged
from lookup_api.ranking.rules import Bar, Picked, pick

LARGEST_SCORE = 1e30
"""JSON has no infinity; no ranker comes near."""


@dataclass(frozen=True, slots=True)
class Shown:
    """items: a JSON array of an object for each of `ids`. dropped, demoted, barred: see rules.Picked.

    untouched: these are the people whom the release lists first, with nobody left out.
    """

    items: bytes
    ids: Sequence[int]
    dropped: Mapping[str, int] = field(default_factory=dict)
    demoted: int = 0
    untouched: bool = False
    barred: Sequence[int] = ()


def shown(ranking: Ranking, picked: Picked) -> Shown:
    """What the rules picked of the ranking. Raises CorruptArtifact."""
    items, base = ",".join(_texts(ranking, picked.records)), ranking.base
    ids = [base + record[0] for record in picked.records]
    return Shown(f"[{items}]".encode(), ids, picked.dropped, picked.demoted, barred=picked.barred)


def cut(page: FirstPage, limit: int, bars: Sequence[Bar], caps: Sequence[int]) -> Shown | None:
    """The same, from the page; None where that says too little: somebody on it is barred, or the caps are others."""
    many = len(page.ids)
    if page.caps != caps or (limit > many and not page.whole) or (page.demoted and limit != page.limit):
        return None
    ids, text = page.ids, page.text
    if limit < many:
        ids, text = ids[:limit], text[: page.ends[limit - 1]]
    for bar in bars:
        if not bar.keys().isdisjoint(ids):
            return None
    return Shown(b"[%b]" % text, ids, {}, page.demoted, True)


def with_page(blob: bytes, limit: int, caps: tuple[int, ...]) -> bytes:
    """A ranking's blob with its first page of at most `limit` people before it."""
    ranking = decode_ranking(blob)
    picked = pick(ranking, limit, (), caps)
    texts = [text.encode() for text in _texts(ranking, picked.records)]
    ids = tuple(ranking.base + record[0] for record in picked.records)
    ends, end = [], -1
    for text in texts:
        end += 1 + len(text)
        ends.append(end)
    page = FirstPage(ids, tuple(ends), b",".join(texts), limit, picked.demoted, len(ranking) <= limit, caps)
    return encode_paged(page, blob)


def _texts(ranking: Ranking, records: Sequence[Record]) -> list[str]:
    """A JSON object each."""
    base, text_of = ranking.base, ranking.text_of
    texts = []
    for rank, (offset, score, shape, count) in enumerate(records, 1):
        if not -LARGEST_SCORE < score < LARGEST_SCORE:
            raise CorruptArtifact(f"ranking blob: score {score}", "Verify the release.")
        head, tail = text_of(shape)
        if count:
            head = f'{head},"count":{count}'
        texts.append(f'{{"user_id":"{base + offset}","rank":{rank},"score":{score:.7g},"reasons":[{head}{tail}]}}')
    return texts
