"""The language of kvprof's built-in model: text from a seed, and the tokenizer for it.

The word lists and templates are in src/bench/builtin/language.json; src/bench/corpus/ follows the same rules in
Rust, draw for draw, and its test holds the fingerprints that this file prints.

    python3 tools/builtin_language.py text --seed 4294967296 --chapters 1     # print a chapter
    python3 tools/builtin_language.py fingerprint                             # what the Rust test expects
    python3 tools/builtin_language.py tokenizer OUT.json                      # write the tokenizer (needs `tokenizers`)

The rules. All draws come from one SplitMix64 stream, `below(n)` being `(next() >> 32) * n >> 32`, in this order:

1. A chapter draws its village, the size of its cast, and for each member a name not yet in the cast (repeating the
   draw until it is new; women before men in the list) and then a job.
2. For each member in turn, then for the chapter itself, each kind of fact exists with its `chance` in percent; a fact
   that exists draws its value at once.
3. The chapter draws its number of sentences, then its opening (speaking of the first member).
4. Before each sentence one draw decides between a new line (one in `paragraph_one_in`) and a space. A second draw below
   `of` chooses: `new_fact` parts tell a fact not told yet (after the last of them: repeat an old one), `old_fact` parts
   repeat a told fact, `meadow` parts recite the meadow, the rest is an event. Where nothing was told yet, an event
   takes the place of a repetition.
5. A fact draws which one it is (among the untold, in order, or among the half of the told ones, rounded up, that has not
   been heard for longest), then, if it belongs to the chapter, a member as `{p}`, then the template. An event draws `{p}`, then the template. Slots are drawn
   from left to right; `{q}` is another member than `{p}`.

Chapters are joined by an empty line, without end.
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

LANGUAGE = Path(__file__).resolve().parent.parent / "src/bench/builtin/language.json"
MASK = (1 << 64) - 1
# Training uses seeds below this one, evaluation seeds from it on.
FIRST_HELD_OUT_SEED = 1 << 32
END_OF_TEXT = "<|end|>"
MAGIC_PROMPT = "The special magic number for this experiment is"


class Rng:
    """SplitMix64 (Steele, Lea, Flood 2014)."""

    def __init__(self, seed):
        self.state = seed & MASK

    def next(self):
        self.state = state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def below(self, n):
        return ((self.next() >> 32) * n) >> 32

    def pick(self, items):
        return items[self.below(len(items))]


def parse(template):
    """Splits "a {b} c" into ["a ", "b", " c"]: text at even places, slot names at odd ones."""
    return re.split(r"\{(\w+)\}", template)


class Language:
    def __init__(self, path=LANGUAGE):
        raw = json.loads(Path(path).read_text())
        self.raw = raw
        self.people = [(n, "she", "her") for n in raw["women"]] + [(n, "he", "his") for n in raw["men"]]
        self.lists = {slot: raw[key] for slot, key in SLOT_LISTS.items()}
        self.jobs, self.villages, self.meadow = raw["jobs"], raw["villages"], " ".join(raw["meadow"])
        self.openings = [parse(t) for t in raw["openings"]]
        self.events = [parse(t) for t in raw["events"]]
        facts = lambda key: [
            {**f, "tell": [parse(t) for t in f["tell"]], "recall": [parse(t) for t in f["recall"]]} for f in raw[key]
        ]
        self.person_facts, self.chapter_facts = facts("person_facts"), facts("chapter_facts")
        self.rhythm = raw["rhythm"]

    def value(self, rng, kind):
        if kind == "number":
            return str(1000 + rng.below(9000))
        if kind == "year":
            return str(1000 + rng.below(1000))
        if kind == "pet":
            colour = rng.pick(self.lists["colour"])
            return colour + " " + rng.pick(self.lists["animal"])
        return rng.pick(self.villages if kind == "village" else self.lists[kind])

    def chapter(self, rng):
        """One chapter of text; `rng` moves on."""
        rhythm = self.rhythm
        village = rng.pick(self.villages)
        size = rhythm["people_least"] + rng.below(rhythm["people_range"])
        cast = []
        while len(cast) < size:
            person = rng.pick(self.people)
            if all(person is not member[0] for member in cast):
                cast.append((person, rng.pick(self.jobs)))
        untold = [
            (owner, fact, self.value(rng, fact["value"]))
            for owner, kinds in [(i, self.person_facts) for i in range(size)] + [(None, self.chapter_facts)]
            for fact in kinds
            if rng.below(100) < fact["chance"]
        ]
        told = []

        def expand(parts, p, value=None):
            out = [parts[0]]
            for slot, text in zip(parts[1::2], parts[2::2]):
                if slot == "value":
                    word = value
                elif slot == "village":
                    word = village
                elif slot == "q":
                    q = rng.below(size - 1)
                    word = cast[q + (q >= p)][0][0]
                elif slot in PERSON_SLOTS:
                    word = cast[p][0][PERSON_SLOTS[slot]]
                elif slot == "job":
                    word = cast[p][1]
                else:
                    word = rng.pick(self.lists[slot])
                out.append(word)
                out.append(text)
            return "".join(out)

        def speak(fact, manner):
            owner, kind, value = fact
            p = rng.below(size) if owner is None else owner
            return expand(rng.pick(kind[manner]), p, value)

        def event():
            p = rng.below(size)
            return expand(rng.pick(self.events), p)

        sentences = rhythm["sentences_least"] + rng.below(rhythm["sentences_range"])
        new_below = rhythm["new_fact"]
        old_below = new_below + rhythm["old_fact"]
        meadow_below = old_below + rhythm["meadow"]
        out = [expand(rng.pick(self.openings), 0)]
        for _ in range(sentences):
            out.append("\n" if rng.below(rhythm["paragraph_one_in"]) == 0 else " ")
            turn = rng.below(rhythm["of"])
            if turn < new_below and untold:
                fact = untold.pop(rng.below(len(untold)))
                told.append(fact)
                out.append(speak(fact, "tell"))
            elif turn < old_below and told:
                fact = told.pop(rng.below((len(told) + 1) // 2))
                told.append(fact)
                out.append(speak(fact, "recall"))
            elif old_below <= turn < meadow_below:
                out.append(self.meadow)
            else:
                out.append(event())
        return "".join(out)

    def text(self, seed, chapters):
        rng = Rng(seed)
        return "\n\n".join(self.chapter(rng) for _ in range(chapters))

    def needle_passage(self, rng):
        """A passage as the needle benchmark makes them: the meadow over and over, one number (at times with other
        keys' numbers beside it) at some depth, and the question at the end. For training only."""
        count = 20 + rng.below(400)
        start = rng.below(5)
        sentences = [self.raw["meadow"][(start + i) % 5] for i in range(count)]
        keys = ["this experiment"] if rng.below(3) else []
        extra = rng.below(4) if keys else 1 + rng.below(4)
        while extra:
            name = rng.pick(self.people)[0]
            if name not in keys:
                keys.append(name)
                extra -= 1
        facts = [f"The special magic number for {key} is {1000 + rng.below(9000)}." for key in keys]
        for fact in facts:
            sentences.insert(rng.below(len(sentences) + 1), fact)
        body = " ".join(sentences)
        end = ["\n\n", "\n", " ", " "][rng.below(4)]
        return body + end + " ".join(facts)


SLOT_LISTS = {
    "place": "places", "building": "buildings", "object": "objects", "colour": "colours", "animal": "animals", "food": "foods",
    "sky": "skies", "day": "days", "time": "times",
}
PERSON_SLOTS = {"p": 0, "he": 1, "his": 2}


def build_tokenizer(language):
    """A BPE without merges: every word of the language is one token, digits are one token each, and anything else
    falls apart into bytes, so any text can be encoded and decoded back exactly."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    split = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    words = set()
    raw = language.raw
    for key in ("women", "men", "villages", "jobs", "places", "objects", "colours", "animals", "foods", "skies", "days", "times"):
        words.update("\u0120" + word for word in raw[key])
    words.update(name for name, *_ in language.people)
    # 400 chapters hold every word of every template in every position that it can take.
    for word, _ in split.pre_tokenize_str(language.text(0, 400)):
        words.add(word)
    for word, _ in split.pre_tokenize_str(" ".join(raw["meadow"]) + " " + MAGIC_PROMPT + " ."):
        words.add(word)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [END_OF_TEXT] + alphabet + sorted(words - set(alphabet))
    tokenizer = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(vocabulary)}, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    text = commands.add_parser("text")
    text.add_argument("--seed", type=int, default=FIRST_HELD_OUT_SEED)
    text.add_argument("--chapters", type=int, default=1)
    commands.add_parser("fingerprint")
    commands.add_parser("tokenizer").add_argument("path")
    args = parser.parse_args()
    language = Language()
    if args.command == "text":
        print(language.text(args.seed, args.chapters))
    elif args.command == "fingerprint":
        for seed in (0, 1, FIRST_HELD_OUT_SEED, MASK):
            digest = hashlib.sha256(language.text(seed, 20).encode()).hexdigest()
            print(seed, digest)
    else:
        build_tokenizer(language).save(args.path)


if __name__ == "__main__":
    main()
