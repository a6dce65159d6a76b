"""ZIP archives of books and documents: bounded reading, and changing members in place.

`Archive.replacements` compresses only the changed members again. Every other byte of the file
stays: the order, names, timestamps, extra fields and comments of all members.
The parser is our own because `zipfile` does not expose the raw bytes of a member and accepts
archives that programs read in different ways, such as one with two members of the same name.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cutline.errors import DataError, OutputError

MAX_MEMBER_BYTES = 64 << 20
"""Size limit of one member after decompression."""

MAX_TOTAL_BYTES = 512 << 20
"""Limit of all that is decompressed from one archive."""

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s4B4HL2L5H2L")
_LOCAL = struct.Struct("<4s2B4HL2L2H")
_END64 = b"PK\x06\x06"
_LOCATOR64 = b"PK\x06\x07"
_DESCRIPTOR = b"PK\x07\x08"
_ENCRYPTED, _HAS_DESCRIPTOR, _IS_UTF8 = 0x1, 0x8, 0x800
_STORED, _DEFLATED = 0, 8
_LIMIT16, _LIMIT32 = 0xFFFF, 0xFFFFFFFF
_ZIP64_FIELD = 1


@dataclass(frozen=True)
class Member:
    """One member of an archive.

    Attributes:
        name: its path in the archive.
        method: 0 is stored, 8 is deflated.
        is_encrypted: whether it needs a password.
        size_bytes: its declared size after decompression.
        crc: the checksum of its content.
        start, data_start, data_end, end: offsets in the file: of its local header, its data, the
            end of its data, and the end of its data descriptor.
        central: the offset of its record in the central directory.
        flags: the general purpose bits.
    """

    name: str
    method: int
    is_encrypted: bool
    size_bytes: int
    crc: int
    start: int
    data_start: int
    data_end: int
    end: int
    central: int
    flags: int


class Archive:
    """A ZIP archive in memory.

    Args:
        content: the whole file.

    Raises:
        DataError: it is not a ZIP archive, it is damaged or ambiguous, or it uses ZIP64.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._left_bytes = MAX_TOTAL_BYTES
        self.members: dict[str, Member] = {}
        self._end = _find_end(content)
        _, disk, first_disk, here, count, size, offset, _ = _END.unpack_from(content, self._end)
        if (disk, first_disk) != (0, 0) or here != count:
            raise DataError("it is one part of a split archive; join the parts first")
        if count == _LIMIT16 or _LIMIT32 in (size, offset):
            raise DataError("it is a ZIP64 archive, which is not supported; save it again")
        self._central = offset
        try:
            self._read_directory(count, offset, size)
        except (struct.error, IndexError) as error:
            raise DataError("its directory is damaged; save it again") from error

    def _read_directory(self, count: int, position: int, size: int) -> None:
        end = position + size
        if end > self._end or (count and not self.content.startswith(b"PK\x01\x02", position)):
            raise DataError("its directory is damaged, or data precedes the archive; save it again")
        found: list[Member] = []
        for _ in range(count):
            member, position = self._member(position)
            found.append(member)
            if member.name in self.members:
                raise DataError(
                    f"it has two members named {member.name!r}, which programs read differently; "
                    "save it again"
                )
            self.members[member.name] = member
        if position != end:
            raise DataError("its directory is damaged; save it again")
        self._in_order = sorted(found, key=lambda each: each.start)
        limits = [each.start for each in self._in_order[1:]] + [self._central]
        for member, limit in zip(self._in_order, limits, strict=True):
            if member.end > limit:
                raise DataError(f"its members overlap ({member.name!r}), which no program writes")

    def _member(self, position: int) -> tuple[Member, int]:
        (sign, _, _, _, _, flags, method, _, _, crc, packed, size, name_size, extra, comment, disk,
         _, _, start) = _CENTRAL.unpack_from(self.content, position)  # fmt: skip
        after = position + _CENTRAL.size
        raw = self.content[after : after + name_size]
        name = _decode_name(raw, flags)
        if sign != b"PK\x01\x02" or len(raw) != name_size or disk:
            raise DataError("its directory is damaged; save it again")
        if _LIMIT32 in (packed, size, start):
            raise DataError("it is a ZIP64 archive, which is not supported; save it again")
        local = _LOCAL.unpack_from(self.content, start)
        names_at = start + _LOCAL.size
        if local[0] != b"PK\x03\x04" or self.content[names_at : names_at + local[-2]] != raw:
            raise DataError(f"its directory and its member {name!r} disagree; save it again")
        data_start = names_at + local[-2] + local[-1]
        data_end = end = data_start + packed
        if flags & _HAS_DESCRIPTOR:
            signed = self.content.startswith(_DESCRIPTOR, data_end)
            end += (20 if _LIMIT32 in local[-4:-2] else 12) + (4 if signed else 0)
        if end > self._central:
            raise DataError(f"its member {name!r} is cut short; copy the file again")
        encrypted = bool(flags & _ENCRYPTED)
        places = (start, data_start, data_end, end, position, flags)
        member = Member(name, method, encrypted, size, crc, *places)
        return member, after + name_size + extra + comment

    def __iter__(self) -> Iterator[Member]:
        """The members in the order of the file."""
        return iter(self._in_order)

    def __contains__(self, name: object) -> bool:
        """Whether there is a member with this name."""
        return name in self.members

    def read(self, name: str, *, max_bytes: int = MAX_MEMBER_BYTES, counted: bool = True) -> bytes:
        """The content of a member.

        Args:
            name: of the member.
            max_bytes: its size limit.
            counted: whether it counts towards the limit of the whole archive.

        Raises:
            DataError: there is no such member, it is too large, encrypted or damaged, or too much
                of the archive has been read.
        """
        member = self.members.get(name)
        if member is None:
            raise DataError(f"it has no {name}")
        if member.is_encrypted:
            raise DataError("it is encrypted; remove the password first")
        limit = min(max_bytes, self._left_bytes) if counted else max_bytes
        if member.size_bytes > limit:
            raise DataError(f"{name} has {member.size_bytes:,} bytes; expected at most {limit:,}")
        packed = self.content[member.data_start : member.data_end]
        if member.method == _STORED:
            content = packed
        elif member.method == _DEFLATED:
            content = _inflate(packed, member)
        else:
            raise DataError(
                f"{name} is compressed by method {member.method}; expected deflate: save it again"
            )
        if len(content) != member.size_bytes or zlib.crc32(content) != member.crc:
            raise DataError(f"{name} is damaged (wrong checksum); copy the file again")
        self._left_bytes -= len(content) if counted else 0
        return content

    def replacements(self, changes: Mapping[str, bytes]) -> list[tuple[int, bytes, bytes]]:
        """What to replace in the file to give some members other content.

        Args:
            changes: the new content by name; the members exist.

        Returns:
            The offset, the old and the new bytes of each piece, in the order of the file: the
            changed members, and the central directory with all that follows.

        Raises:
            OutputError: a member is stored in a way that cannot be written again.
        """
        found: list[tuple[int, bytes, bytes]] = []
        moved: dict[int, int] = {}  # local headers: old offset -> new
        patches: dict[str, tuple[int, int, int]] = {}
        grown = 0
        for member in self._in_order:
            moved[member.start] = member.start + grown
            if member.name in changes:
                old = self.content[member.start : member.end]
                new, patches[member.name] = self._packed(member, changes[member.name])
                found.append((member.start, old, new))
                grown += len(new) - len(old)
        tail = self._directory(self._central + grown, moved, patches)
        return [*found, (self._central, self.content[self._central :], tail)]

    def difference(self, other: Archive, changed: Mapping[str, bytes]) -> str:
        """What differs in another archive besides the content of some members; "" if nothing.

        Args:
            other: the other archive.
            changed: the expected content, by name, of the members that may differ.
        """
        if [each.name for each in self] != [each.name for each in other]:
            return "its members differ"
        ends = [0, 0]
        for mine, its in zip(self, other, strict=True):
            gaps = (self.content[ends[0] : mine.start], other.content[ends[1] : its.start])
            ends = [mine.end, its.end]
            whole = self.content[mine.start : mine.end]
            if mine.name in changed:
                same = self._header(mine) == other._header(its)
                same &= other.read(mine.name) == changed[mine.name]
            else:
                same = whole == other.content[its.start : its.end]
            if not same or gaps[0] != gaps[1]:
                return f"{mine.name} differs"
        last = (self.content[ends[0] : self._central], other.content[ends[1] : other._central])
        if last[0] != last[1] or self._masked_tail(changed) != other._masked_tail(changed):
            return "its directory differs"
        return ""

    def _header(self, member: Member) -> tuple[bytes, bytes, int]:
        """A member's local header without the checksum and sizes, and its descriptor's length."""
        header = self.content[member.start : member.data_start]
        at = member.start + _LOCAL.size
        *_, packed, _, name_size, _ = _LOCAL.unpack_from(header)
        end = at + name_size if packed == _LIMIT32 else member.data_start
        return header[:14], self.content[at:end], member.end - member.data_end

    def _masked_tail(self, changed: Mapping[str, bytes]) -> bytes:
        """The central directory and all that follows, without offsets, checksums and sizes."""
        tail = bytearray(self.content[self._central :])
        for member in self.members.values():
            at = member.central - self._central
            tail[at + 42 : at + 46] = bytes(4)
            if member.name in changed:
                tail[at + 16 : at + 28] = bytes(12)
        end = self._end - self._central
        tail[end + 16 : end + 20] = bytes(4)
        if end >= 20 and tail.startswith(_LOCATOR64, end - 20):
            [record] = struct.unpack_from("<Q", tail, end - 12)
            at = record - self._central
            tail[end - 12 : end - 4] = bytes(8)
            if 0 <= at < end - 56:
                tail[at + 48 : at + 56] = bytes(8)
        return bytes(tail)

    def _packed(self, member: Member, content: bytes) -> tuple[bytes, tuple[int, int, int]]:
        """A member with other content: its bytes, and its checksum and sizes."""
        if member.method == _STORED:
            data = content
        elif member.method == _DEFLATED:
            packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
            data = packer.compress(content) + packer.flush()
        else:
            raise OutputError(f"{member.name} is compressed by method {member.method}")
        sizes = (zlib.crc32(content), len(data), len(content))
        header = bytearray(self.content[member.start : member.data_start])
        *_, packed, size, name_size, _ = _LOCAL.unpack_from(header)
        if _LIMIT32 in (packed, size):
            _patch_zip64(header, _LOCAL.size + name_size, sizes[2], sizes[1], member.name)
            struct.pack_into("<L", header, 14, sizes[0])
        elif (packed, size) != (0, 0) or not member.flags & _HAS_DESCRIPTOR:
            struct.pack_into("<3L", header, 14, *sizes)
        descriptor = b""
        if member.flags & _HAS_DESCRIPTOR:
            length = member.end - member.data_end
            form = "<3L" if length < 20 else "<L2Q"
            signed = length > struct.calcsize(form)
            descriptor = (_DESCRIPTOR if signed else b"") + struct.pack(form, *sizes)
        return bytes(header) + data + descriptor, sizes

    def _directory(
        self, start: int, moved: Mapping[int, int], patches: Mapping[str, tuple[int, int, int]]
    ) -> bytes:
        """The central directory and all that follows, for a directory that begins at `start`."""
        tail = bytearray(self.content[self._central :])
        for member in self.members.values():
            at = member.central - self._central
            struct.pack_into("<L", tail, at + 42, moved[member.start])
            if member.name in patches:
                struct.pack_into("<3L", tail, at + 16, *patches[member.name])
        end = self._end - self._central
        struct.pack_into("<L", tail, end + 16, start)
        shift = start - self._central
        locator = end - 20
        if locator >= 0 and tail.startswith(_LOCATOR64, locator):
            [record] = struct.unpack_from("<Q", tail, locator + 8)
            struct.pack_into("<Q", tail, locator + 8, record + shift)
            at = record - self._central
            if at < 0 or not tail.startswith(_END64, at):
                raise OutputError("its ZIP64 records are damaged; save it again")
            struct.pack_into("<Q", tail, at + 48, start)
        return bytes(tail)


def _find_end(content: bytes) -> int:
    """The offset of the end record."""
    position = content.rfind(b"PK\x05\x06", max(0, len(content) - _END.size - _LIMIT16))
    if position < 0 or position + _END.size > len(content):
        known = content.startswith(b"PK\x03\x04")
        what = "it is cut short; copy the file again" if known else "it is not a ZIP archive"
        raise DataError(what)
    return position


def _decode_name(raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("utf-8" if flags & _IS_UTF8 else "cp437", "replace")


def _inflate(packed: bytes, member: Member) -> bytes:
    """A deflated member, of its declared size at most."""
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = unpacker.decompress(packed, member.size_bytes + 1)
    except zlib.error as error:
        raise DataError(f"{member.name} is damaged ({error}); copy the file again") from error
    if len(content) > member.size_bytes or not unpacker.eof:
        raise DataError(f"{member.name} has another size than declared, which no program writes")
    return content


def _patch_zip64(header: bytearray, at: int, size: int, packed: int, name: str) -> None:
    """Write the sizes into the ZIP64 field of a local header."""
    while at + 4 <= len(header):
        field, length = struct.unpack_from("<2H", header, at)
        if field == _ZIP64_FIELD and length >= 16:
            struct.pack_into("<2Q", header, at + 4, size, packed)
            return
        at += 4 + length
    raise OutputError(f"the ZIP64 field of {name} is damaged; save the file again")
