"""Cold storage in a bucket of a real S3-compatible server, and the query cache in a real Redis."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import redis
from pydantic import SecretStr

from config.bucket import Bucket
from server.errors import ServiceError
from server.knowledge import QueryCache
from server.policies.tiering.claim import claim
from tests.knowledge.sources.brokers import redis_server
from tests.policies.tiered import document, shown, tiered
from tests.s3 import ACCESS_KEY, S3, SECRET_KEY, s3_server

pytestmark = pytest.mark.anyio

BOTH = ("warm", "cold")


@pytest.fixture(scope="module")
def server() -> Iterator[S3]:
    with s3_server() as found:
        yield found


def bucket(url: str, endpoint: str) -> Bucket:
    return Bucket(url=url, endpoint=endpoint, access_key=ACCESS_KEY, secret_key=SecretStr(SECRET_KEY))


async def test_documents_move_to_a_bucket_and_few_requests_search_them(server: S3, tmp_path: Path) -> None:
    place = bucket(f"{server.bucket('kb-cold')}/handbook", server.endpoint)
    async with tiered(tmp_path, place) as each:
        await each.collection.push([document(n) for n in range(6)], [])
        before = shown(await each.search("subject3", k=99, mode="vector"))
        await each.run()
        report = await each.run(days=31)
        assert report.figures["documents_out"] == 6 and await each.local() == set()
        assert shown(await each.search("subject3", BOTH, k=99, mode="vector")) == before
        await each.search("subject2", BOTH)
        asked = len(server.requests)
        found = await each.search("subject4", BOTH)
        requests = server.requests[asked:]
        assert found.hits[0].document_id == "d4"
        assert len(requests) <= 12, requests
        assert all('"GET' in line for line in requests), "a search writes nothing"
        each.now += 1
        await each.used("d4")
        await each.collection.push([document(1, "anew")], ["d2"])
        report = await each.run(days=1)
        assert report.figures["documents_back"] == 1 and await each.local() == {"d4", "d1"}
        assert await each.cold() == {"d0", "d3", "d5"}
    async with tiered(tmp_path, place) as again:
        hits = (await again.search("page", BOTH, k=60)).hits
        assert {hit.document_id for hit in hits} == {"d0", "d1", "d3", "d4", "d5"}
        assert len(hits) == len({hit.id for hit in hits})


async def test_a_bucket_that_cannot_be_reached_fails_the_run_and_changes_nothing(tmp_path: Path) -> None:
    async with tiered(tmp_path, bucket("s3://kb-cold", "http://127.0.0.1:9")) as each:
        await each.collection.push([document(n) for n in range(3)], [])
        with pytest.raises(ServiceError, match="s3://kb-cold"):
            await each.run(days=31)
        assert await each.local() == {"d0", "d1", "d2"} and each.tier.refusal is not None
        assert (await each.search("subject1")).hits[0].document_id == "d1"


class _Careless(BaseHTTPRequestHandler):
    """Takes every put, whatever it says of what may be there already."""

    def log_message(self, *told: object) -> None:
        """Nothing."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("etag", '"1"')
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = b"<DeleteResult><Deleted><Key>probe</Key></Deleted></DeleteResult>"
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def test_a_store_that_ignores_conditional_puts_is_refused() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Careless) as careless:
        thread = Thread(target=careless.serve_forever)
        thread.start()
        try:
            with pytest.raises(ServiceError, match="ignores conditional puts"):
                claim(bucket("s3://kb-cold", f"http://127.0.0.1:{careless.server_address[1]}"), "one")
        finally:
            careless.shutdown()
            thread.join()


# ---- the query cache ------------------------------------------------------------------------------------------------


async def test_an_answer_is_kept_until_its_table_changes(tmp_path: Path) -> None:
    cache = QueryCache(2**20)
    async with tiered(tmp_path, cache=cache) as each:
        await each.collection.push([document(n) for n in range(4)], [])
        first = await each.search("subject1")
        kept = await each.search("subject1")
        assert not first.is_kept and kept.is_kept and kept.hits == first.hits
        assert (kept.tokens, list(kept.timings_ms), kept.version) == (0, ["cache"], first.version)
        assert not (await each.search("subject1", k=3)).is_kept, "other parameters are another question"
        await each.collection.push([document(1, "anew")], [])
        changed = await each.search("subject1")
        assert not changed.is_kept and any("anew" in hit.text for hit in changed.hits)
        await each.run()
        await each.run(days=31)
        moved = await each.search("subject1")
        assert not moved.is_kept and moved.tiers == BOTH and moved.hits[0].document_id == "d1"
        assert (await each.search("subject1")).is_kept
        assert cache.hits == 2 and cache.misses == 4


async def test_a_full_cache_lets_go_of_what_was_asked_for_longest_ago(tmp_path: Path) -> None:
    cache = QueryCache(20_000)
    async with tiered(tmp_path, cache=cache) as each:
        await each.collection.push([document(n) for n in range(4)], [])
        for n in range(30):
            await each.search("subject1")
            await each.search(f"subject{n} other")
            assert cache.bytes <= 20_000
        assert (await each.search("subject1")).is_kept
        assert not (await each.search("subject0 other")).is_kept


async def test_servers_share_answers_in_redis_and_go_on_without_it(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        first, second = QueryCache(2**20, url), QueryCache(2**20, url)
        async with tiered(tmp_path, cache=first) as each, tiered(tmp_path, cache=second) as other:
            await each.collection.push([document(n) for n in range(4)], [])
            found = await each.search("subject1")
            kept = await other.search("subject1")
            assert kept.is_kept and kept.hits == found.hits
            with redis.Redis.from_url(url) as client:
                [key] = list(client.scan_iter())
                assert key.startswith(b"hearth:query:")
                client.set(key, b"nothing that anybody wrote")
            other.collection._cache = third = QueryCache(2**20, url)
            assert not (await other.search("subject1")).is_kept, "what cannot be read is found anew"
        await first.close()
    async with tiered(tmp_path, cache=third) as alone:
        assert (await alone.search("subject3")).hits[0].document_id == "d3"
        assert (await alone.search("subject3")).is_kept, "in its own memory"
    await second.close()
    await third.close()
