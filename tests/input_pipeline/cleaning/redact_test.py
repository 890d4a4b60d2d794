"""Personal data: check digits by their standards, what goes and what stays."""

import importlib.util
import pickle
import time

import pytest

from input_pipeline.cleaning.redact import (
  KINDS,
  bank_card,
  iban,
  iban_length,
  redact,
  resident_id,
)
from input_pipeline.document import Counted, Document

# Examples of GB 11643-1999; of ISO 13616's registry; card makers' test cards.
RESIDENTS = ("11010519491231002X", "440524188001010014")
IBANS = (
  "GB29NWBK60161331926819",
  "DE89370400440532013000",
  "FR1420041010050500013M02606",
  "NO9386011117947",
  "CH9300762011623852957",
  "MT84MALT011000012345MTLCAST001S",
)
CARDS = (
  "4111111111111111",
  "5555555555554444",
  "378282246310005",
  "6011111111111117",
  "30569309025904",
  "3530111333300000",
  "6200000000000005",
)


def clean(text: str, **settings) -> tuple[str, dict[str, int]]:
  result = redact(**settings)(Document("a", text))
  if isinstance(result, Counted):
    return result.document.text, dict(result.counts)
  return result.text, {}


@pytest.mark.parametrize("number", RESIDENTS)
def test_resident_id_and_each_single_error(number):
  assert resident_id(number)
  for place in range(17):
    for digit in set("0123456789") - {number[place]}:
      wrong = number[:place] + digit + number[place + 1 :]
      assert not resident_id(wrong)
  # MOD 11-2 finds every transposition of neighbours too.
  for i in range(16):
    if number[i] != number[i + 1]:
      wrong = number[:i] + number[i + 1] + number[i] + number[i + 2 :]
      assert not resident_id(wrong)


def test_resident_id_needs_a_day_that_exists():
  # Check characters worked out by hand: 30 February, and province 00.
  weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]
  for body, valid in (
    ("11010519900230001", False),
    ("11010519900228001", True),
    ("00010519900228001", False),
  ):
    total = sum(int(d) * w for d, w in zip(body, weights, strict=True))
    number = body + "10X98765432"[total % 11]
    assert resident_id(number) is valid


@pytest.mark.parametrize("number", IBANS)
def test_iban_and_each_single_error(number):
  assert iban(number)
  for place in range(2, len(number)):
    if number[place].isdigit():
      wrong = number[:place] + str((int(number[place]) + 1) % 10)
      assert not iban(wrong + number[place + 1 :])
  assert not iban(number[:-1])
  assert iban_length(number[:2]) == len(number)


def test_countries_without_ibans_have_no_length():
  assert iban_length("US") == iban_length("ZZ") == 0


def test_numbers_of_people_from_taiwan_hong_kong_and_new_districts():
  weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]
  # Nanshan district, 440305, was founded in 1990.
  for body in ("83000019900228001", "81000019900228001", "44030519450228001"):
    total = sum(int(d) * w for d, w in zip(body, weights, strict=True))
    assert resident_id(body + "10X98765432"[total % 11])


@pytest.mark.parametrize("number", CARDS)
def test_card_and_each_single_error(number):
  assert bank_card(number)
  for place in range(len(number)):
    for digit in set("0123456789") - {number[place]}:
      wrong = number[:place] + digit + number[place + 1 :]
      assert not bank_card(wrong)


GONE = [
  ("write to bob.smith+x@example.co.uk.", "write to <email>."),
  ("邮箱li_1@163.com请联系", "邮箱<email>请联系"),
  ("bob (at) example.org", "<email>"),
  ("联系电话13800138000，谢谢", "联系电话<phone>，谢谢"),
  ("138-0013-8000 or +86 138 0013 8000", "<phone> or <phone>"),
  ("座机010-65548888，或（0755）86541234", "座机<phone>，或<phone>"),
  ("(212) 555-0142, 212-555-0142", "<phone>, <phone>"),
  ("+44 20 7946 0958 / 020 7946 0958", "<phone> / <phone>"),
  ("+49 (0) 30 901820; 01 99 00 12 34", "<phone>; <phone>"),
  ("Tel.: 2125550142", "Tel.: <phone>"),
  ("from 93.184.216.34 and 2001:4860:4860::8888.", "from <ip> and <ip>."),
  ("IP: 8.8.8.8, DNS 1.1.1.1", "IP: <ip>, DNS <ip>"),
  ("身份证11010519491231002x号", "身份证<id_card>号"),
  ("4111 1111 1111 1111 paid", "<bank_card> paid"),
  ("3782-822463-10005", "<bank_card>"),
  ("IBAN GB29 NWBK 6016 1331 9268 19 is", "IBAN <iban> is"),
  ("key AKIAIOSFODNN7EXAMPLE", "key <secret>"),
  ("ghp_" + "a1B2c3D4e5F6" * 3, "<secret>"),
  ("xoxb-123456789012-abcdefABCDEF", "<secret>"),
  ("AIza" + "SyA1b2C3d" * 3 + "12345678", "<secret>"),
  ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmN", "<secret>"),
  ('api_key = "q7Zp0Xw4Lk9Rt2Vb"', 'api_key = "<secret>"'),
  (
    "a\n-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\nb",
    "a\n<secret>\nb",
  ),
  ("-----BEGIN PRIVATE KEY-----\nMIIBcut", "<secret>"),
]


@pytest.mark.parametrize(("text", "expected"), GONE, ids=range(len(GONE)))
def test_goes(text, expected):
  found, counts = clean(text)
  assert found == expected
  assert sum(counts.values()) == expected.count("<")


STAYS = [
  "version 10.4.11.2 of 2023-10-11 12:30:00, 01/02/2023 10:30",
  "$1,380,013,800.00 or 13,800,138,000",
  "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, ISSN 0378-5955",
  "order 13800138000; 订单号13800138000",
  "11010519491231002 and 110105194912310021",
  "4111 1111 1111 1112",
  "GB29 NWBK 6016 1331 9268 18",
  "1700000000 1700000000123 0.13800138000",
  "d41d8cd98f00b204e9800998ecf8427e",
  "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
  "127.0.0.1 10.1.2.3 192.168.1.1 203.0.113.7 ::1 fe80::1 2001:db8::1",
  "999.1.1.1 1.2.3.4.5 std::max a::b 12:30:45 00:1a:2b:3c:4d:5e",
  "logo@2x.png git@github.com:a/b @anna react@18.2.0",
  "token: authentication_required; password: correct horse",
  "the recession of 2007-2009, phones 2007-2009, call 1.234.567",
  "Boston, MA 02110-1301; section 3.2.2.10, ~= 1.4.5.0; P.O. 0815-00507",
  "password = base64.b16encode(x)",
  "/item/13800138000 SN13800138000 138001380001",
]


@pytest.mark.parametrize("text", STAYS, ids=range(len(STAYS)))
def test_stays(text):
  assert clean(text) == (text, {})


def test_each_kind_is_counted_and_can_be_chosen():
  text = "a@b.org c@d.org 93.184.216.34 13800138000"
  assert clean(text)[1] == {"email": 2, "ip": 1, "phone": 1}
  assert clean(text, kinds=["ip"])[0] == text.replace("93.184.216.34", "<ip>")
  assert clean("a@b.org", placeholder="[{kind}]")[0] == "[email]"
  texts = dict.fromkeys(KINDS, "")
  assert clean("x a@b.org", placeholder={**texts, "email": "E"})[0] == "x E"
  assert clean("at 10.1.2.3", keep_private_ips=False)[0] == "at <ip>"


def test_what_was_found_is_gone_for_good():
  text = " ; ".join(text for text, _ in GONE)
  once = clean(text)[0]
  assert clean(once) == (once, {})


@pytest.mark.parametrize(
  ("settings", "named"),
  [
    (dict(kinds=["mail"]), "'mail'"),
    (dict(kinds=["ip"], placeholder={"email": "x"}), "'ip'"),
  ],
)
def test_a_wrong_setting_is_named(settings, named):
  with pytest.raises(ValueError, match=named):
    redact(**settings)


def test_a_missing_library_is_one_line(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match=r"python-stdnum.*-e '\.\[clean\]'"):
    redact()
  redact(kinds=["email", "phone"])


def test_it_can_be_sent_to_another_machine():
  stage = pickle.loads(pickle.dumps(redact()))
  assert stage(Document("a", "a@b.org")).document.text == "<email>"


HOSTILE = ["1", "1 ", "+1 ", "a@", "0-", "eyJ.", "eyJa.eyJ", "a.", "::", "1."]
HOSTILE += ["-----BEGIN PRIVATE KEY-----", "api_key = ", "4111 ", "GB29 ", "(0"]
HOSTILE += ["a (at) ", "password: x", "1-212-555-", "0086 ", "é@é.", "tel 1 "]


@pytest.mark.parametrize("piece", HOSTILE)
def test_time_grows_no_faster_than_a_hostile_text(piece):
  def seconds(length):
    text = piece * (length // len(piece))
    start = time.process_time()
    clean(text)
    return time.process_time() - start

  seconds(1_000)
  short = min(seconds(25_000) for _ in range(2))
  # Eight times the text: 64 times as long if it were quadratic.
  assert seconds(200_000) < 24 * max(short, 0.005)
