"""The check digits of identity numbers, bank cards and accounts."""

import datetime
import re

_ID_WEIGHTS = tuple(2 ** (17 - i) % 11 for i in range(17))
_ID_CHECK = "10X98765432"
# First two digits: the provinces of GB/T 2260, and 81 to 83 for residents
# from Hong Kong, Macao and Taiwan.
_PROVINCES = frozenset(
  "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53"
  " 54 61 62 63 64 65 71 81 82 83".split()
)
# Length of an IBAN by country, as ISO 13616's registry lists them.
_IBAN_LENGTHS = {
  country: int(length)
  for length, countries in (
    entry.split(":")
    for entry in (
      "15:NO 16:BE 18:DK,FI,FK,FO,GL,NL,SD 19:MK,SI"
      " 20:AT,BA,EE,KZ,LT,LU,MN,XK 21:CH,CR,HR,LI,LV 22:BG,BH,DE,GB,GE,IE,ME,RS"
      " 23:AE,GI,IL,IQ,OM,SO,TL 24:AD,CZ,ES,MD,PK,RO,SA,SE,SK,TN,VG"
      " 25:LY,PT,ST 26:IS,TR 27:BI,DJ,FR,GR,IT,MC,MR,SM"
      " 28:AL,AZ,BY,CY,DO,GT,HU,LB,NI,PL,SV 29:BR,EG,PS,QA,UA"
      " 30:JO,KW,MU,YE 31:MT,SC 32:LC 33:RU"
    ).split()
  )
  for country in countries.split(",")
}
# Who issues a card: its first digits, and how many it has.
_ISSUERS = re.compile(
  r"4(?:\d{12}|\d{15}|\d{18})"  # Visa
  r"|5[1-5]\d{14}"  # Mastercard
  r"|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"
  r"|3[47]\d{13}"  # American Express
  r"|(?:30[0-5]|3[689]\d)\d{11,16}"  # Diners Club
  r"|(?:6011|64[4-9]\d|65\d\d)\d{12,15}"  # Discover
  r"|35(?:2[89]|[3-8]\d)\d{12,15}"  # JCB
  r"|(?:62|81)\d{14,17}"  # UnionPay
  r"|955[89]\d{12,15}"  # Chinese debit cards older than UnionPay
  r"|220[0-4]\d{12,15}"  # Mir
  r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{9,15}",  # Maestro
  re.ASCII,
)


def luhn(digits: str) -> bool:
  """Whether the last digit is the check digit of ISO/IEC 7812 (Luhn, 1960)."""
  total = 0
  for place, digit in enumerate(reversed(digits)):
    value = int(digit) * (1 + place % 2)
    total += value - 9 * (value > 9)
  return total % 10 == 0


def bank_card(digits: str) -> bool:
  """Whether 13 to 19 digits are a card's: an issuer's prefix, length, Luhn."""
  return bool(_ISSUERS.fullmatch(digits)) and luhn(digits)


def resident_id(number: str) -> bool:
  """Whether 18 characters are a Chinese resident's number, GB 11643-1999.

  A province, a date of birth that exists, and the check character of ISO 7064
  MOD 11-2; lower-case x counts.
  """
  body, check = number[:17], number[17:].upper()
  if len(number) != 18 or not (body.isascii() and body.isdigit()):
    return False
  if number[:2] not in _PROVINCES or not "18" <= number[6:8] <= "20":
    return False
  try:
    datetime.date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
  except ValueError:
    return False
  total = sum(w * int(d) for w, d in zip(_ID_WEIGHTS, body, strict=True))
  return _ID_CHECK[total % 11] == check


def iban_length(country: str) -> int:
  """Characters of an IBAN of that country; 0 where it has none."""
  return _IBAN_LENGTHS.get(country, 0)


def iban(number: str) -> bool:
  """Whether an account number without spaces is an IBAN: ISO 7064 MOD 97-10."""
  if len(number) != iban_length(number[:2]) or not number.isascii():
    return False
  if not (number.isalnum() and number.isupper()):
    return False
  moved = number[4:] + number[:4]
  return int("".join(str(int(c, 36)) for c in moved)) % 97 == 1
