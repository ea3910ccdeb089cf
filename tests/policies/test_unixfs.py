"""Files and folders have the CIDs that other implementations of IPFS give them."""

import numpy as np
import pytest

from server.policies.backup import car, unixfs
from server.policies.backup import cid as cids
from server.policies.backup.cid import Cid
from server.policies.backup.unixfs import LEAF, Link, Tree

# Made with the npm packages ipfs-unixfs-importer 15 and blockstore-core 4: cidVersion 1, rawLeaves, fixedSize(262144),
# balanced(174), wrapWithDirectory. Byte i of each file is (7 i + i / 256) mod 256.
FILES = {
    "empty": (0, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"),
    "small": (11, "bafkreiemzsnsdw4rkkmqgrbtgcu5z7z4uqi4pmlblprnimkvujjqxcwa74"),
    "leaf": (LEAF, "bafkreibdffnmnzlbq264m4kqmxcslchnncczdb567t7xahpgbhdyigvtr4"),
    "two": (LEAF + 1, "bafybeielov4zxeb3kwwrtgpluv2mh72hsf7vjypbok654v7i2ox5ylnlje"),
    "docs/node": (174 * LEAF, "bafybeibhdmfsjcrpm35ps7u2gne73oftfex62xvtxg3ntryfmuu3fjhnpa"),
    "docs/more": (175 * LEAF + 5, "bafybeibjzuycakaqx6nfwdbvy4q23aon7666mobksatgjzuiefnvshyubi"),
    "docs/deep/small": (3, "bafkreiftmhiptkjyuk5u7pojyio4lkczpcaedmaebem5rkarygeidbhu34"),
}
DEEP = "bafybeif24nbwmzoflm5qqloawdeqtnkgfke4z6ymaiu3cd2r2rv3fzxhv4"
DOCS = "bafybeif6p7qtxcegg2vlmafcbd274niwdort2ag5eytqi6xztp7mb6pv4u"
ROOT = "bafybeifxgc6pwu72l4mrf2vnmcblpoojrlu2tnzvmx2yycnhaoz4zreeim"


def content(size: int) -> bytes:
    place = np.arange(size, dtype=np.int64)
    return bytes(((place * 7 + (place >> 8)) & 255).astype(np.uint8))


def added(size: int, emit: unixfs.Emit) -> Link:
    data = memoryview(content(size))
    tree = Tree(emit)
    for at in range(0, max(size, 1), LEAF):
        leaf = data[at : at + LEAF]
        tree.leaf(cids.of(cids.RAW, leaf), len(leaf))
    return tree.root()


def test_files_and_folders_have_the_cids_of_another_implementation() -> None:
    blocks: dict[Cid, bytes] = {}
    links = {path: added(size, blocks.__setitem__) for path, (size, _) in FILES.items()}
    assert {path: str(link.cid) for path, link in links.items()} == {path: cid for path, (_, cid) in FILES.items()}
    deep = unixfs.directory({"small": links["docs/deep/small"]}, blocks.__setitem__)
    inside = {"node": links["docs/node"], "more": links["docs/more"], "deep": deep}
    docs = unixfs.directory(inside, blocks.__setitem__)
    top = {path: link for path, link in links.items() if "/" not in path} | {"docs": docs}
    root = unixfs.directory(top, blocks.__setitem__)
    assert (str(deep.cid), str(docs.cid), str(root.cid)) == (DEEP, DOCS, ROOT)
    node = unixfs.read(blocks[root.cid])
    assert node.is_directory and [name for name, _ in node.links] == ["docs", "empty", "leaf", "small", "two"]
    assert unixfs.read(blocks[links["docs/more"].cid]).size == 175 * LEAF + 5


def test_a_cid_is_read_as_it_is_written() -> None:
    cid = cids.of(cids.DAG_PB, b"x")
    assert cids.parse(str(cid)) == cid == cids.from_binary(cid.binary)
    for wrong in ("", "Qmfoo", "b", str(cid)[:-1], "bafkrei1"):
        with pytest.raises(ValueError, match=r".*"):
            cids.parse(wrong)


def test_a_car_gives_its_blocks_back_and_a_cut_one_is_refused() -> None:
    blocks = [(cids.of(cids.RAW, data), data) for data in (b"", b"one", b"x" * 300)]
    whole = car.header(blocks[0][0]) + b"".join(car.before(cid, len(data)) + data for cid, data in blocks)
    assert [(cid, bytes(data)) for cid, _, data in car.blocks(memoryview(whole))] == blocks
    assert all(whole[at : at + len(data)] == data for _, at, data in car.blocks(memoryview(whole)))
    with pytest.raises(ValueError, match="does not end"):
        list(car.blocks(memoryview(whole[:-1])))
