"""What a rule of ``FakeRegistry.fault(method, pattern, FAULT, ...)`` may do to an exchange.

Before the registry acts
    ``Respond`` (any answer, nothing done), ``AnswerEarly``, ``Interim``, ``Throttle``, ``Redirect``, ``Unauthorized``,
    ``Stall``, ``ResetRequest``, ``LimitBody``, ``IgnoreRange``, ``ForgetUploads``, ``ExpireTokens``, ``MoveTag``,
    ``Raw``
After it acted
    ``DropResponse``, ``SetStatus``, ``SetHeader``, ``WrongDigest``, ``ForeignLocation``, ``ForeignRealm``,
    ``ForeignLink``, ``ShiftRange``, ``LyingRange``, ``ContentLength``, ``Gzip``, ``ReplaceBody``
While the body of the response goes out
    ``Truncate``, ``Flip``, ``Trailing``, ``StallBody``, ``Trickle``

A fault says ``exchange.fire()`` when it took effect: a truncation longer than the body, or a flip on an empty one,
never fires, and ``FakeRegistry.assert_fired`` complains.
"""

from support.fault_after import (
    ContentLength,
    DropResponse,
    ForeignLink,
    ForeignLocation,
    ForeignRealm,
    Gzip,
    LyingRange,
    ReplaceBody,
    SetHeader,
    SetStatus,
    ShiftRange,
    WrongDigest,
)
from support.fault_base import Exchange, Fault
from support.fault_before import (
    AnswerEarly,
    ExpireTokens,
    ForgetUploads,
    IgnoreRange,
    Interim,
    LimitBody,
    MoveTag,
    Raw,
    Redirect,
    ResetRequest,
    Respond,
    Stall,
    Throttle,
    Unauthorized,
)
from support.fault_body import Flip, StallBody, Trailing, Trickle, Truncate

__all__ = [
    "AnswerEarly",
    "ContentLength",
    "DropResponse",
    "Exchange",
    "ExpireTokens",
    "Fault",
    "Flip",
    "ForeignLink",
    "ForeignLocation",
    "ForeignRealm",
    "ForgetUploads",
    "Gzip",
    "IgnoreRange",
    "Interim",
    "LimitBody",
    "LyingRange",
    "MoveTag",
    "Raw",
    "Redirect",
    "ReplaceBody",
    "ResetRequest",
    "Respond",
    "SetHeader",
    "SetStatus",
    "ShiftRange",
    "Stall",
    "StallBody",
    "Throttle",
    "Trailing",
    "Trickle",
    "Truncate",
    "Unauthorized",
    "WrongDigest",
]
