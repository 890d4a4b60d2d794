"""Precision and recall of `redact` on 1,000 planted items of personal data.

With a fixed seed, each item, with valid check digits, is inserted into a real
English or Chinese sentence (WikiText-2, ChnSentiCorp); an equal number of
sentences get a look-alike that must be kept: a number with a wrong check digit,
an ISBN, a time, a version, a hash, a price, a private address. An item is found
if one span of its kind covers it and at most two more characters; every other
span is false, including those in the original sentences. Nothing here uses
redact's expressions.

  python benchmarks/data/redaction.py --data=DIR
"""

import argparse
import base64
import csv
import hashlib
import json
import pathlib
import random
import string
import uuid
from collections import Counter

from input_pipeline.cleaning import redact

SEED = 20_261_125
COUNTS = {
  "email": 170,
  "phone": 260,
  "ip": 100,
  "id_card": 120,
  "bank_card": 120,
  "iban": 60,
  "secret": 170,
}
ALNUM = string.ascii_letters + string.digits


def digits(rng: random.Random, n: int) -> str:
  """Returns random digits."""
  return "".join(rng.choice(string.digits) for _ in range(n))


def with_luhn(body: str) -> str:
  """Returns the body and its check digit, by definition of Luhn's method."""
  odd = [int(d) for d in body[::-1][1::2]]
  even = [sum(divmod(2 * int(d), 10)) for d in body[::-1][::2]]
  return body + str(-(sum(odd) + sum(even)) % 10)


def with_id_check(body: str) -> str:
  """Returns the 17 digits and their check digit, by ISO 7064 MOD 11-2."""
  p = 0
  for d in body:
    p = (p + int(d)) * 2 % 11
  return body + "0123456789X"[(12 - p) % 11]


def with_iban_check(country: str, account: str) -> str:
  """Returns the IBAN of an account: ISO 7064 MOD 97-10, digit by digit."""
  number = "".join(
    str(ord(c) - 55) if c.isalpha() else c for c in account + country + "00"
  )
  remainder = 0
  for d in number:
    remainder = (remainder * 10 + int(d)) % 97
  return f"{country}{98 - remainder:02d}{account}"


def grouped(text: str, sizes, mark: str) -> str:
  """Splits the text into pieces of these sizes and a rest."""
  parts, at = [], 0
  for size in sizes:
    parts.append(text[at : at + size])
    at += size
  return mark.join(p for p in [*parts, text[at:]] if p)


def an_email(rng):
  """(lead, an address)."""
  first = rng.choice("anna bob chen.wei j_smith marie-luise li x9 info".split())
  domain = rng.choice(
    "163.com qq.com example.co.uk mail.uni-bonn.de gmail.com a-b.org".split()
  )
  tail = rng.choice(
    ["", digits(rng, 3), "+news", ".zhang", str(1970 + len(first))]
  )
  mark = rng.choice(["@"] * 12 + ["(at)", " [at] "])
  return "", f"{first}{tail}{mark}{domain}"


def a_phone(rng):
  """(lead, a telephone number)."""
  mobile = "1" + rng.choice("3456789") + digits(rng, 9)
  area = rng.choice("2345678") + rng.choice("012345678") + digits(rng, 1)
  us = (area, rng.choice("23456789") + digits(rng, 2), digits(rng, 4))
  eight = rng.choice("2345678") + digits(rng, 7)
  land = rng.choice(["010", "021", "0755", "0571", "020"])
  choices = [
    ("", mobile),
    ("", mobile),
    ("电话", mobile),
    ("", grouped(mobile, (3, 4), rng.choice("- "))),
    ("", rng.choice(["+86", "+86 ", "+86-", "86-", "0086 "]) + mobile),
    ("", f"{land}-{eight}"),
    ("座机：", f"({land}){eight}"),
    ("Tel: ", f"{land}{eight}"),
    ("", f"({us[0]}) {us[1]}-{us[2]}"),
    ("", rng.choice("-.").join(us)),
    ("call ", "".join(us)),
    ("", f"+1 {us[0]} {us[1]} {us[2]}"),
    ("", f"+44 20 7{digits(rng, 3)} {digits(rng, 4)}"),
    ("", f"020 7{digits(rng, 3)} {digits(rng, 4)}"),
    ("", f"07{rng.choice('4579')}{digits(rng, 2)} {digits(rng, 6)}"),
    ("", f"+49 (0) {rng.choice('37')}0 {digits(rng, 7)}"),
    ("", f"030/{rng.choice('2345678')}{digits(rng, 6)}"),
    ("Telefon: ", f"0{rng.choice('17')}7{digits(rng, 1)} {digits(rng, 7)}"),
    ("", " ".join(["01", *(digits(rng, 2) for _ in range(4))])),
    ("", f"+33{rng.choice('1679')}{digits(rng, 8)}"),
    ("", f"+852 {rng.choice('2569')}{digits(rng, 3)} {digits(rng, 4)}"),
    (
      "Tel. ",
      f"{rng.choice('69')}{digits(rng, 2)} {digits(rng, 3)} {digits(rng, 3)}",
    ),
  ]
  return rng.choice(choices)


def an_ip(rng):
  """(lead, a public IPv4 or IPv6 address)."""
  if rng.random() < 0.7:
    head = rng.choice("8 23 45 101 114 139 151 185 199 203".split())
    rest = [str(rng.randint(1, 254)) for _ in range(3)]
    if head == "203":
      rest[0] = "119"
    return rng.choice(["", "IP: ", "from "]), ".".join([head, *rest])
  words = [f"{rng.randint(1, 0xFFFF):x}" for _ in range(5)]
  head = rng.choice(["2a02", "2400:3200", "2606:4700", "240e"])
  if rng.random() < 0.5:
    return "", f"{head}:{words[0]}::{words[1]}"
  fill = 8 - 1 - head.count(":")
  return "", ":".join([head, *(words + words)[:fill]])


def id_body(rng):
  """17 digits of a resident's number: place, date of birth, serial."""
  place = rng.choice("110105 310115 440305 330106 510104 420111".split())
  date = f"{rng.randint(1945, 2012)}{rng.randint(1, 12):02d}"
  return f"{place}{date}{rng.randint(1, 28):02d}{digits(rng, 3)}"


def an_id_card(rng):
  """(lead, a Chinese resident's number)."""
  number = with_id_check(id_body(rng))
  number = number.lower() if rng.random() < 0.3 else number
  if rng.random() < 0.1:
    number = grouped(number, (6, 8), " ")
  return rng.choice(["", "身份证号", "身份证：", "ID "]), number


def card_body(rng):
  """A card's digits but the last."""
  head, length = rng.choice(
    [("4", 16), ("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("34", 15)]
    + [("37", 15), ("6011", 16), ("3530", 16), ("621700", 19), ("622202", 19)]
    + [("622848", 19), ("625", 16), ("62", 17), ("36", 14)]
  )
  return head + digits(rng, length - len(head) - 1)


def written_card(rng, number):
  """A card's number in groups or in one."""
  if rng.random() < 0.5:
    return number
  mark = rng.choice(" -")
  if len(number) == 15:
    return grouped(number, (4, 6), mark)
  if len(number) == 14:
    return grouped(number, (4, 6), mark)
  return grouped(number, (4, 4, 4, 4), mark)


def a_bank_card(rng):
  """(lead, a card's number)."""
  lead = rng.choice(["", "卡号", "card ", "银行卡："])
  return lead, written_card(rng, with_luhn(card_body(rng)))


def an_iban(rng, wrong=0):
  """(lead, an IBAN whose check digits are off by `wrong`)."""
  country, account = rng.choice(
    [("DE", digits(rng, 18)), ("GB", "WEST" + digits(rng, 14))]
    + [("FR", digits(rng, 23)), ("NL", "ABNA" + digits(rng, 10))]
    + [("ES", digits(rng, 20)), ("AT", digits(rng, 16))]
  )
  number = with_iban_check(country, account)
  if wrong:
    number = number[:2] + f"{(int(number[2:4]) + wrong) % 97:02d}" + number[4:]
  number = grouped(number, [4] * 9, " ") if rng.random() < 0.6 else number
  return rng.choice(["", "IBAN "]), number


def random_text(rng, n, letters=ALNUM):
  """Returns random letters."""
  return "".join(rng.choice(letters) for _ in range(n))


def a_secret(rng):
  """(lead, a key, token or private key)."""

  def part(data):
    raw = json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")

  url = ALNUM + "-_"
  base32 = string.ascii_uppercase + "234567"
  jwt = (part({"alg": "HS256"}), part({"sub": digits(rng, 9)}))
  pem = base64.encodebytes(rng.randbytes(300)).decode()
  kind = rng.choice(["", "RSA ", "EC ", "OPENSSH "])
  generic = random_text(rng, rng.choice([20, 32, 40]))[:-2] + "a7"
  names = ("api_key = ", 'API_KEY="', "apikey: ", "secret_key=", "token: ")
  return rng.choice(
    [
      ("", "AKIA" + random_text(rng, 16, base32)),
      ("", rng.choice(["ghp_", "gho_", "ghs_"]) + random_text(rng, 36)),
      ("", f"xoxb-{digits(rng, 11)}-{digits(rng, 12)}-{random_text(rng, 24)}"),
      ("", "AIza" + random_text(rng, 34, url) + "a"),
      ("", ".".join([*jwt, random_text(rng, 42, url) + "b"])),
      (
        "",
        f"-----BEGIN {kind}PRIVATE KEY-----\n{pem}"
        f"-----END {kind}PRIVATE KEY-----",
      ),
      ("", "sk_live_" + random_text(rng, 24)),
      (rng.choice(names), "7b" + generic),
      (rng.choice(names), "q3" + generic),
    ]
  )


PLANT = {
  "email": an_email,
  "phone": a_phone,
  "ip": an_ip,
  "id_card": an_id_card,
  "bank_card": a_bank_card,
  "iban": an_iban,
  "secret": a_secret,
}


def another(rng, last):
  """Returns a wrong check digit."""
  return rng.choice([d for d in string.digits if d != last])


def isbn_13(rng):
  """Returns an ISBN with its check digit."""
  body = "978" + digits(rng, 9)
  total = sum(int(d) * (1, 3)[i % 2] for i, d in enumerate(body))
  return body + str(-total % 10)


def look_alike(rng):
  """Returns (lead, text) of an item that is not personal data."""
  card = with_luhn(card_body(rng))
  person = with_id_check(id_body(rng))
  isbn = isbn_13(rng)
  octets = [str(rng.randint(0, 254)) for _ in range(3)]
  r = rng.randint
  date = f"{r(1990, 2026)}-{r(1, 12):02d}-{r(1, 28):02d}"
  clock = f"{r(0, 23):02d}:{r(0, 59):02d}:{r(0, 59):02d}"
  price = f"${r(1, 999)},{digits(rng, 3)},{digits(rng, 3)}.{digits(rng, 2)}"
  inner = rng.choice(["10.", "192.168.", "172.16."])
  inner += ".".join(octets)[:9].strip(".")
  local = "127.0.0.1 192.0.2.17 ::1 fe80::1 2001:db8::7".split()
  code = ["logo@2x.png", "std::vector::at", "react@18.2.0", "@anna"]
  words = ["authentication_required", "your-token-goes-here"]
  data = rng.randbytes(16)
  month_13 = person[:10] + "13" + person[12:17]
  return rng.choice(
    [
      ("", written_card(rng, card[:-1] + another(rng, card[-1]))),
      ("", person[:-1] + another(rng, person[-1])),
      ("", with_id_check(month_13)),
      an_iban(rng, wrong=rng.randint(1, 90)),
      ("ISBN ", isbn),
      ("ISBN ", grouped(isbn, (3, 1, 3, 5), "-")),
      ("ISBN ", f"0-{digits(rng, 3)}-{digits(rng, 5)}-{digits(rng, 1)}"),
      ("ISSN ", f"0{digits(rng, 3)}-{digits(rng, 4)}"),
      ("", f"{date} {clock}"),
      ("", f"{date}T{clock}Z"),
      ("", ".".join(reversed(date.split("-")))),
      ("", "/".join(reversed(date.split("-")))),
      ("", str(rng.randint(1_500_000_000, 1_790_000_000))),
      ("", str(rng.randint(1_500_000_000_000, 1_790_000_000_000))),
      ("version ", ".".join(["1", *octets])),
      ("v", ".".join(octets)),
      ("", ".".join(octets)),
      ("", hashlib.md5(data).hexdigest()),
      ("", hashlib.sha1(data).hexdigest()),
      ("", hashlib.sha256(data).hexdigest()),
      ("", str(uuid.UUID(bytes=data))),
      ("", price),
      ("", f"{rng.random():.12f}"),
      ("order no. ", digits(rng, 11)),
      ("订单号", "1" + rng.choice("3456789") + digits(rng, 9)),
      ("", inner),
      ("", rng.choice(local)),
      ("", ":".join(f"{b:02x}" for b in data[:6])),
      ("", rng.choice(code)),
      ("doi:10.", f"{digits(rng, 4)}/{digits(rng, 8)}"),
      ("token: ", rng.choice(words)),
      ("", f"{digits(rng, 2)} {digits(rng, 3)} {digits(rng, 3)} km²"),
    ]
  )


def sentences(data: pathlib.Path, rng: random.Random) -> list[str]:
  """Returns real sentences of 40 to 300 characters, half of them Chinese."""
  english = (data / "lm_wikitext2_valid_test/valid.txt").read_text()
  english = [
    s.strip() + " ." for line in english.split("\n") for s in line.split(" . ")
  ]
  with open(data / "cls_zh_hotel_reviews/ChnSentiCorp_htl_all.csv") as file:
    chinese = [row[1].strip() for row in list(csv.reader(file))[1:]]
  found = []
  for pool in (english, chinese):
    pool = sorted({s for s in pool if 40 <= len(s) <= 300})
    found.append(rng.sample(pool, 1_000))
  return [s for pair in zip(*found, strict=True) for s in pair]


def put(rng, sentence: str, lead: str, item: str) -> tuple[str, int]:
  """Returns the sentence with the item inside, and its position."""
  spaced = sentence.isascii() or " " in sentence[:20]
  places = [
    i
    for i in range(1, len(sentence))
    if not any(c.isdigit() for c in sentence[max(0, i - 2) : i + 2])
    and (
      sentence[i] == " " if spaced else "\u4e00" <= sentence[i - 1] <= "\u9fff"
    )
  ] or [len(sentence)]
  at = rng.choice(places)
  head = sentence[:at] + (" " if spaced else "")
  opening, closing = rng.choice([("", "")] * 4 + [("(", ")"), ("", ",")])
  text = f"{head}{opening}{lead}{item}{closing}{sentence[at:]}"
  return text, len(head + opening + lead)


def main() -> None:
  """Plants items, runs redact, and prints precision and recall by kind."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", required=True, type=pathlib.Path)
  parser.add_argument("--show", type=int, default=0, help="Errors to print.")
  args = parser.parse_args()
  rng = random.Random(SEED)
  kinds = [kind for kind, count in COUNTS.items() for _ in range(count)]
  plan = kinds + [""] * len(kinds)
  rng.shuffle(plan)
  right, planted, predicted = Counter(), Counter(), Counter()
  shown = 0
  for kind, sentence in zip(plan, sentences(args.data, rng), strict=True):
    lead, item = PLANT[kind](rng) if kind else look_alike(rng)
    text, start = put(rng, sentence, lead, item)
    stop, hit = start + len(item), False
    found = redact.find(text)
    for a, b, k in found:
      predicted[k] += 1
      if k == kind and a <= start and stop <= b and b - a - len(item) <= 2:
        right[k] += 1
        hit = True
    planted[kind] += bool(kind)
    if shown < args.show and (bool(kind) != hit or len(found) > hit):
      shown += 1
      spans = [(text[a:b], k) for a, b, k in found]
      print(f"{kind or 'nothing'}: {lead}{item!r}: {spans} in {text[:60]!r}")
  print(f"{'kind':10} planted found right recall precision")
  for kind in [*COUNTS, "all"]:
    p, f, r = (
      c.total() if kind == "all" else c[kind]
      for c in (planted, predicted, right)
    )
    print(f"{kind:10} {p:7} {f:5} {r:5} {r / p:6.3f} {r / max(f, 1):9.3f}")


if __name__ == "__main__":
  main()
