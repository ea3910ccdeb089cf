"""Uploads to a bucket in several parts that were begun and never finished: a process that is killed leaves them there,
where nobody sees them and they are paid for.

The store's client has no calls for them, so that two requests of S3's own are signed here. Requests:
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html, API_AbortMultipartUpload.html; signature:
https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html.
"""

import hashlib
import hmac
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import httpx

from config.bucket import Bucket
from server.errors import ServiceError

_TIMEOUT_S = 30.0
_EMPTY = hashlib.sha256(b"").hexdigest()


class Key(NamedTuple):
    """What requests are signed with; `token` is that of a session, where there is one."""

    name: str
    secret: str
    token: str | None = None


def key_of(bucket: Bucket, environment: Mapping[str, str]) -> Key | None:
    """None where neither the recipe nor the environment has one."""
    if bucket.access_key is not None and bucket.secret_key is not None:
        return Key(bucket.access_key, bucket.secret_key.get_secret_value())
    name, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    return Key(name, secret, environment.get("AWS_SESSION_TOKEN")) if name and secret else None


def abort(bucket: Bucket, folder: str) -> int:
    """Let go of the unfinished uploads in `folder` of the bucket's prefix; how many there were. Only while nobody else
    uploads there. Raises ServiceError where the store does not say or do it; without a key nothing is done."""
    key = key_of(bucket, os.environ)
    if key is None:
        return 0
    below = f"{bucket.prefix}/{folder}/" if bucket.prefix else f"{folder}/"
    try:
        with httpx.Client(trust_env=False, timeout=_TIMEOUT_S) as client:
            found = list(_unfinished(client, bucket, key, below))
            for name, upload in found:
                _ask(client, bucket, key, "DELETE", name, {"uploadId": upload})
    except (httpx.HTTPError, ElementTree.ParseError) as fault:
        raise ServiceError(f"{bucket.url}: unfinished uploads could not be removed: {fault}") from fault
    return len(found)


def _unfinished(client: httpx.Client, bucket: Bucket, key: Key, below: str) -> Iterator[tuple[str, str]]:
    """Each one's name and upload id."""
    query = {"uploads": "", "prefix": below}
    while True:
        told = ElementTree.fromstring(_ask(client, bucket, key, "GET", "", query))
        for each in told.findall("{*}Upload"):
            name = each.findtext("{*}Key", "")
            if name.startswith(below):  # a store may not know the parameter
                yield name, each.findtext("{*}UploadId", "")
        if told.findtext("{*}IsTruncated") != "true":
            return
        query["key-marker"] = told.findtext("{*}NextKeyMarker", "")
        query["upload-id-marker"] = told.findtext("{*}NextUploadIdMarker", "")


def _ask(client: httpx.Client, bucket: Bucket, key: Key, method: str, name: str, query: Mapping[str, str]) -> bytes:
    base = urlsplit(bucket.endpoint or _amazon(bucket))
    # With an endpoint, `virtual_host` says that the bucket's name is in it.
    parts = [] if bucket.virtual_host else [bucket.name]
    path = base.path.rstrip("/") + "/" + "/".join([*parts, *([name] if name else [])])
    headers = signed(key, bucket.region, method, base.netloc, path, query, datetime.now(UTC))
    reply = client.request(method, f"{base.scheme}://{base.netloc}{_quoted(path)}?{_joined(query)}", headers=headers)
    if reply.status_code not in (200, 204, 404):  # 404: it is gone already
        raise httpx.HTTPError(f"{method} is answered with {reply.status_code}: {reply.text.strip()[:200]}")
    return reply.content


def _amazon(bucket: Bucket) -> str:
    host = f"s3.{bucket.region}.amazonaws.com"
    return f"https://{bucket.name}.{host}" if bucket.virtual_host else f"https://{host}"


def signed(
    key: Key, region: str, method: str, host: str, path: str, query: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """The headers of a request without a body, signed by AWS's version 4."""
    moment, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
    headers = {"host": host, "x-amz-content-sha256": _EMPTY, "x-amz-date": moment}
    if key.token is not None:
        headers["x-amz-security-token"] = key.token
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = "\n".join([method, _quoted(path), _joined(query), lines, names, _EMPTY])
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    secret = f"AWS4{key.secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    told = f"AWS4-HMAC-SHA256 Credential={key.name}/{scope},SignedHeaders={names},Signature={signature}"
    return headers | {"authorization": told}


def _quoted(path: str) -> str:
    return quote(path, safe="/-_.~")


def _joined(query: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))
