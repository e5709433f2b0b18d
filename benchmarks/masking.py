"""What masking lets through, what it hides without need, and what it costs."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from statistics import median

from benchmarks import masking_heldout
from benchmarks.masking_corpus import Sample, credentials, log_lines, ordinary, personal_data, untold
from benchmarks.results import Table, ratio
from benchmarks.setting import Setting
from graph.masking import Masker, MaskingError

SEED = 20241220
EACH_SECRET, EACH_PERSONAL, EACH_ORDINARY = 20, 60, 75
LINES = 20_000
RUNS = 5
LONG_SECRET = 12  # characters: of one as long, half must not survive either
_EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b")


def measure(setting: Setting) -> list[Table]:
    """On a corpus that is drawn anew each time, from a seed."""
    masker = Masker(b"benchmark")
    setting.tell("masking: secrets")
    hidden = [
        _judged("credentials", masker, credentials(SEED, EACH_SECRET)),
        _judged("personal data", masker, personal_data(SEED, EACH_PERSONAL)),
        _judged("secrets that nothing tells from other words", masker, untold(SEED, 10 * EACH_SECRET)),
    ]
    setting.tell("masking: look-alikes")
    kept = _judged("look-alikes", masker, ordinary(SEED, EACH_ORDINARY))
    return [
        Table(
            "Secrets and personal data that survive masking",
            ("kind", "n", "leaked", "share", "trace id beside it lost", "refused"),
            [row for group in hidden for row in group],
            "Leaked: the secret, or half of one of 12 characters or more, is still there. Refused: MaskingError, so"
            " nothing leaves. The corpus is made of the vendors' documented formats, but by the author of the masks:"
            " it says what is covered, not how much of an unknown log would leak.",
        ),
        Table(
            "Look-alikes that masking changes",
            ("kind", "n", "changed", "share", "", "refused"),
            kept,
            "Nothing in these is a secret: ids, hashes, times, versions, prices, prose and settings about secrets.",
        ),
        _held_out(setting, masker),
        _throughput(setting, masker),
    ]


def leaked(sample: Sample, masked: str) -> bool:
    """The secret, or half of a long one, is still there; of text without a secret: it was changed."""
    if not sample.secret:
        return masked != sample.text
    half = len(sample.secret) // 2
    parts = [sample.secret] if len(sample.secret) < LONG_SECRET else [sample.secret[:half], sample.secret[half:]]
    return any(part in masked for part in parts)


def _judged(group: str, masker: Masker, samples: Iterable[Sample]) -> list[Sequence[str]]:
    """A row for all, then one for each kind."""
    seen, bad, lost, refused = (Counter[str]() for _ in range(4))
    for sample in samples:
        seen[sample.kind] += 1
        try:
            masked = masker.mask(sample.text)
        except MaskingError:
            refused[sample.kind] += 1
            continue
        bad[sample.kind] += leaked(sample, masked)
        lost[sample.kind] += sample.keeps not in masked

    def row(name: str, count: Callable[[Counter[str]], int]) -> Sequence[str]:
        n, leaks = count(seen), count(bad)
        return name, f"{n:,}", str(leaks), f"{leaks / n:.1%}", str(count(lost)), str(count(refused))

    return [row(f"**{group}**", Counter.total), *(row(kind, lambda c, k=kind: c[k]) for kind in seen)]  # type: ignore[misc]


def _held_out(setting: Setting, masker: Masker) -> Table:
    """Then and now; the kinds of which nothing ever leaked, or was changed, are only in the sums."""
    setting.tell("masking: held-out corpus")
    rows: list[Sequence[str]] = []
    for name, samples, first in (
        ("credentials and personal data", masking_heldout.credentials, masking_heldout.FIRST_LEAKED),
        ("harmless lines", masking_heldout.harmless, masking_heldout.FIRST_CHANGED),
    ):
        seen = Counter(sample.kind for sample in samples(masking_heldout.SEED))
        groups = {sample.kind: sample.group for sample in samples(masking_heldout.SEED)}
        now, other = (_failed(masker, samples(masking_heldout.SEED + n)) for n in (0, 1))
        sums = [f"**{name}**", *dict.fromkeys(groups.values())]
        for title in sums if len(sums) > 2 else sums[:1]:
            kinds = [kind for kind in seen if title in (sums[0], groups[kind])]
            n, *bad = (sum(of[kind] for kind in kinds) for of in (seen, Counter(first), now, other))
            rows.append((title if title == sums[0] else f"*{title}*", f"{n:,}", *(f"{b} ({b / n:.1%})" for b in bad)))
        rows += [
            (kind, str(seen[kind]), str(first.get(kind, 0)), str(now[kind]), str(other[kind]))
            for kind in seen
            if first.get(kind, 0) or now[kind] or other[kind]
        ]
    return Table(
        "Held-out corpus, written without sight of the patterns",
        ("kind", "n", "before", "now", "now, other values"),
        rows,
        f"Secrets that leaked, and harmless lines that were changed. Leaked: the secret, or a piece of it of"
        f" {LONG_SECRET} characters (8 of a password), is still there, or the text was refused. Before: constants, what"
        " the masker did when it first met this corpus; that is the held-out result. Now: after its rules were mended,"
        " with these samples at hand, so no more held out; other values: the same places, drawn from another seed. Of"
        f" {len(masking_heldout.KINDS)} kinds of secrets and {len(masking_heldout.HARMLESS)} of harmless lines, those"
        " with 0 throughout are only in the sums.",
    )


def _failed(masker: Masker, samples: Iterable[masking_heldout.Sample]) -> Counter[str]:
    failed = Counter[str]()
    for sample in samples:
        try:
            masked = masker.mask(sample.text)
        except MaskingError:
            failed[sample.kind] += 1
            continue
        failed[sample.kind] += sample.leaked(masked) if sample.hidden else masked != sample.text
    return failed


def _throughput(setting: Setting, masker: Masker) -> Table:
    lines = list(log_lines(SEED, LINES))
    corpus = [s.text for s in (*credentials(SEED, EACH_SECRET), *ordinary(SEED, EACH_ORDINARY))]
    texts = {
        "ordinary log lines, one by one": lines,
        "the same as texts of 100 lines": ["\n".join(lines[n : n + 100]) for n in range(0, LINES, 100)],
        "the corpus, a secret in every other text": corpus,
    }
    rows = []
    for name, of in texts.items():
        setting.tell(f"masking: {name}")
        masked, one, copied = (_mb_per_s(work, of) for work in (masker.mask, _without_emails, _copied))
        rows.append((name, *(f"{speed:,.1f}" for speed in (masked, one, copied)), ratio(masked, one)))
    return Table(
        "MB/s of one core",
        ("text", "mask", "one `re.sub`, of emails (reference)", "encode and decode", "of the reference"),
        rows,
        f"Median of {RUNS} runs. The masker has some hundred rules, the reference has one.",
    )


def _mb_per_s(work: Callable[[str], object], texts: Sequence[str]) -> float:
    size = sum(len(text.encode()) for text in texts) / 1e6
    times = []
    for _ in range(RUNS):
        started = time.thread_time()
        for text in texts:
            work(text)
        times.append(time.thread_time() - started)
    return size / median(times)


def _without_emails(text: str) -> str:
    return _EMAIL.sub("", text)


def _copied(text: str) -> str:
    return text.encode().decode()
