-- Wireshark and tshark dissector of the Homa transport, as the Linux kernel module speaks it since mid-2026: native
-- (IP protocol 146) and hijacked (IP protocol 6, marked by TCP flags SYN+RST and urgent pointer 0xb97d).
--
--   tshark -X lua_script:scripts/homa.lua -r capture.pcap -Y 'homa.rpc == 1234'
--   wireshark: copy this file into the folder "Personal Lua Plugins" (Help, About, Folders)
--
-- All multi-byte integers are big-endian; lengths and offsets are in bytes. Written for Wireshark 4.0 and later.

local homa = Proto("homa", "Homa Transport Protocol")

local IPPROTO_TCP, IPPROTO_HOMA = 6, 146
local FLAGS_MARK, URGENT_MARK = 0x06, 0xb97d
local COMMON_LEN, MAX_MESSAGE_LEN, MAX_ACKS = 28, 1000000, 5
local ACK_RECORD_LEN, PRIORITY_LEVELS = 10, 8
-- DATA: the offset is in the sequence number. RESEND: everything that was sent.
local MINUS_ONE = 0xffffffff

local DATA, GRANT, RESEND, CUTOFFS, FREEZE, ACK = 0x10, 0x11, 0x12, 0x15, 0x16, 0x18
local NAMES = {
    [0x10] = "DATA", [0x11] = "GRANT", [0x12] = "RESEND", [0x13] = "RPC_UNKNOWN", [0x14] = "BUSY",
    [0x15] = "CUTOFFS", [0x16] = "FREEZE", [0x17] = "NEED_ACK", [0x18] = "ACK",
}
local HEADER_LENS = {
    [0x10] = 56, [0x11] = 33, [0x12] = 37, [0x13] = 28, [0x14] = 28, [0x15] = 62, [0x16] = 28, [0x17] = 28, [0x18] = 80,
}
local BAD, GOOD, UNVERIFIED, OFFLOADED = 0, 1, 2, 3
local STATUS = { [BAD] = "Bad", [GOOD] = "Good", [UNVERIFIED] = "Unverified", [OFFLOADED] = "Left to the device" }

local f = {
    sport = ProtoField.uint16("homa.sport", "Source port", base.DEC),
    dport = ProtoField.uint16("homa.dport", "Destination port", base.DEC),
    port = ProtoField.uint16("homa.port", "Source or destination port", base.DEC),
    sequence = ProtoField.uint32("homa.sequence", "Sequence number", base.DEC),
    unused = ProtoField.uint24("homa.unused", "Unused (TCP acknowledgement, high bytes)", base.HEX),
    type = ProtoField.uint8("homa.type", "Type", base.HEX, NAMES),
    doff = ProtoField.uint8("homa.doff", "Header length in 32-bit words", base.DEC, nil, 0xf0),
    reserved = ProtoField.uint8("homa.reserved", "Reserved", base.DEC, nil, 0x0f),
    flags = ProtoField.uint8("homa.flags", "TCP flags (6 on every packet)", base.HEX),
    window = ProtoField.uint16("homa.window", "Window", base.DEC),
    checksum = ProtoField.uint16("homa.checksum", "Checksum", base.HEX),
    checksum_status = ProtoField.uint8("homa.checksum.status", "Checksum status", base.DEC, STATUS),
    urgent = ProtoField.uint16("homa.urgent", "Urgent pointer (0xb97d on every packet)", base.HEX),
    id = ProtoField.uint64("homa.id", "RPC id as its sender knows it", base.DEC),
    rpc = ProtoField.uint64("homa.rpc", "RPC id as its client knows it", base.DEC),
    from_client = ProtoField.bool("homa.from_client", "Sent by the client"),
    hijacked = ProtoField.bool("homa.hijacked", "In the guise of TCP"),

    message_length = ProtoField.uint32("homa.message_length", "Message length", base.DEC),
    incoming = ProtoField.uint32("homa.incoming", "Sent without further grants up to", base.DEC),
    cutoff_version = ProtoField.uint16("homa.cutoff_version", "Version of the receiver's cutoffs", base.DEC),
    retransmit = ProtoField.uint8("homa.retransmit", "Retransmitted", base.DEC),
    pad = ProtoField.uint24("homa.pad", "Padding", base.HEX),
    seg_offset = ProtoField.int32("homa.seg_offset", "Segment offset (-1: see sequence number)", base.DEC),
    offset = ProtoField.uint32("homa.offset", "Offset in the message", base.DEC),
    data = ProtoField.bytes("homa.data", "Data"),
    data_length = ProtoField.uint32("homa.data_length", "Data length", base.DEC),

    ack = ProtoField.none("homa.ack", "Acknowledged RPC"),
    ack_count = ProtoField.uint16("homa.ack.count", "Acknowledgements", base.DEC),
    ack_id = ProtoField.uint64("homa.ack.id", "RPC id as its client knows it", base.DEC),
    ack_port = ProtoField.uint16("homa.ack.port", "Server's port", base.DEC),
    ack_unused = ProtoField.bytes("homa.ack.unused", "Unused acknowledgements"),

    grant_offset = ProtoField.uint32("homa.grant.offset", "May send up to", base.DEC),
    grant_priority = ProtoField.uint8("homa.grant.priority", "Priority", base.DEC),
    resend_offset = ProtoField.uint32("homa.resend.offset", "First byte wanted", base.DEC),
    resend_length = ProtoField.int32("homa.resend.length", "Bytes wanted (-1: all that was sent)", base.DEC),
    resend_priority = ProtoField.uint8("homa.resend.priority", "Priority", base.DEC),
    cutoffs_version = ProtoField.uint16("homa.cutoffs.version", "Version", base.DEC),
    trailer = ProtoField.bytes("homa.trailer", "Bytes after the header"),
}
for level = 0, PRIORITY_LEVELS - 1 do
    f["cutoff" .. level] = ProtoField.uint32("homa.cutoffs.level" .. level, "Longest message of level " .. level)
end
homa.fields = f

-- `bad`: no receiver may use such a packet; `odd`: receivers cope.
local function bad(name, text)
    return ProtoExpert.new("homa." .. name, text, expert.group.MALFORMED, expert.severity.ERROR)
end
local function odd(name, text)
    return ProtoExpert.new("homa." .. name, text, expert.group.PROTOCOL, expert.severity.WARN)
end
local e = {
    short = bad("short_header", "Header cut short"),
    unknown = bad("unknown_type", "Unknown packet type"),
    length = bad("bad_message_length", "Message length out of range"),
    beyond = bad("beyond_message", "Data beyond the end of the message"),
    zero_id = odd("zero_id", "RPC id 0"),
    ack_count = odd("too_many_acks", "More acknowledgements than fit"),
    ack_id = odd("bad_ack", "Acknowledgement of an id that no client has"),
    checksum = ProtoExpert.new("homa.bad_checksum", "Bad checksum", expert.group.CHECKSUM, expert.severity.WARN),
    checksum_native = ProtoExpert.new(
        "homa.bad_checksum_native", "Bad checksum, which no receiver of native packets looks at",
        expert.group.CHECKSUM, expert.severity.NOTE),
}
homa.experts = e

homa.prefs.verify = Pref.bool("Verify checksums", true, "Compute the checksum of each packet (slow on large captures)")

local ip_src, ip_dst = Field.new("ip.src"), Field.new("ip.dst")
local ip6_src, ip6_dst = Field.new("ipv6.src"), Field.new("ipv6.dst")

-- Adds `field` at `at` of `packet`, unless the capture ends before. Returns its tree item, or nil.
local function add(tree, field, packet, at, len)
    if at + len <= packet:captured_len() then
        return tree:add(field, packet(at, len))
    end
end

-- The 32-bit number at `at`, or nil if the capture ends before.
local function u32(packet, at)
    return at + 4 <= packet:captured_len() and packet(at, 4):uint() or nil
end

-- Sum of the big-endian 16-bit words of string `bytes`, an odd last byte padded with zero.
local function sum_words(bytes)
    local sum = 0
    for at = 1, #bytes - 1, 2 do
        local high, low = bytes:byte(at, at + 1)
        sum = sum + high * 256 + low
    end
    return #bytes % 2 == 1 and sum + bytes:byte(#bytes) * 256 or sum
end

local function fold(sum)
    while sum > 0xffff do
        sum = sum % 0x10000 + math.floor(sum / 0x10000)
    end
    return sum
end

-- Sum of the pseudo-header: addresses, TCP's protocol number whatever the packet's is, length. Nil without addresses.
local function pseudo_sum(packet, pinfo)
    local from, to
    if tostring(pinfo.net_dst):find(":", 1, true) then
        from, to = { ip6_src() }, { ip6_dst() }
    else
        from, to = { ip_src() }, { ip_dst() }
    end
    -- The innermost header comes last.
    from, to = from[#from], to[#to]
    if from and to then
        local addresses = from.range:bytes():raw() .. to.range:bytes():raw()
        return sum_words(addresses) + IPPROTO_TCP + packet:reported_len()
    end
end

-- OFFLOADED: the field holds the pseudo-header's sum, for the sending device to complete: so captures on the sending
-- host show it.
local function checksum_status(packet, pinfo)
    local pseudo = homa.prefs.verify and packet:captured_len() == packet:reported_len() and pseudo_sum(packet, pinfo)
    if not pseudo then
        return UNVERIFIED
    elseif fold(pseudo + sum_words(packet:bytes():raw())) == 0xffff then
        return GOOD
    elseif packet(16, 2):uint() == fold(pseudo) then
        return OFFLOADED
    end
    return BAD
end

local function dissect_checksum(packet, pinfo, tree, hijacked)
    local item = add(tree, f.checksum, packet, 16, 2)
    if not item then
        return
    end
    local status = checksum_status(packet, pinfo)
    item:append_text(" (" .. STATUS[status]:lower() .. ")")
    local shown = tree:add(f.checksum_status, packet(16, 2), status):set_generated()
    if status == BAD then
        shown:add_proto_expert_info(hijacked and e.checksum or e.checksum_native)
    end
end

-- The id in the header: of the sender, and with the low bit cleared, which is the same in both directions. Returns
-- the sender's as text, or nil if the capture ends before.
local function dissect_id(packet, tree, type)
    local item = add(tree, f.id, packet, 20, 8)
    if not item then
        return
    end
    local range = packet(20, 8)
    local id = range:uint64()
    local from_client = id:band(1) == UInt64(0)
    tree:add(f.rpc, range, id:band(UInt64(0xfffffffe, 0xffffffff))):set_generated()
    if type ~= FREEZE then
        tree:add(f.from_client, range, from_client):set_generated()
        if id == UInt64(0) then
            item:add_proto_expert_info(e.zero_id)
        end
    end
    return tostring(id)
end

-- The first 28 bytes. Returns type and sender's id as text; nil for what the capture lacks.
local function dissect_common(packet, pinfo, tree, hijacked)
    local type = packet:captured_len() >= 12 and packet(11, 1):uint() or nil
    if add(tree, f.sport, packet, 0, 2) then
        tree:add(f.port, packet(0, 2)):set_hidden()
        pinfo.src_port = packet(0, 2):uint()
    end
    if add(tree, f.dport, packet, 2, 2) then
        tree:add(f.port, packet(2, 2)):set_hidden()
        pinfo.dst_port = packet(2, 2):uint()
    end
    add(tree, f.sequence, packet, 4, 4)
    add(tree, f.unused, packet, 8, 3)
    local item = add(tree, f.type, packet, 11, 1)
    if type and not NAMES[type] then
        item:add_proto_expert_info(e.unknown, ("Unknown packet type 0x%02x: expected 0x10 to 0x18"):format(type))
    end
    add(tree, f.doff, packet, 12, 1)
    add(tree, f.reserved, packet, 12, 1)
    add(tree, f.flags, packet, 13, 1)
    add(tree, f.window, packet, 14, 2)
    dissect_checksum(packet, pinfo, tree, hijacked)
    add(tree, f.urgent, packet, 18, 2)
    local id = dissect_id(packet, tree, type)
    tree:add(f.hijacked, hijacked):set_generated()
    return type, id
end

-- An acknowledgement record. An id of 0 means "none"; only clients acknowledge, and their ids are even. Returns the
-- id as text, or nil if there is none.
local function dissect_ack(packet, tree, at)
    if at + ACK_RECORD_LEN > packet:captured_len() then
        return
    end
    local record = tree:add(f.ack, packet(at, ACK_RECORD_LEN))
    local id = packet(at, 8):uint64()
    local item = record:add(f.ack_id, packet(at, 8))
    record:add(f.ack_port, packet(at + 8, 2))
    if id == UInt64(0) then
        record:append_text(": none")
        return
    end
    record:append_text((": %s at port %u"):format(tostring(id), packet(at + 8, 2):uint()))
    if id:band(1) ~= UInt64(0) then
        item:add_proto_expert_info(e.ack_id)
    end
    return tostring(id)
end

-- What follows the common header, a function a type: each returns text for the info column.
local bodies = {}

bodies[DATA] = function(packet, tree)
    local length_item = add(tree, f.message_length, packet, 28, 4)
    add(tree, f.incoming, packet, 32, 4)
    local acked = dissect_ack(packet, tree, 36)
    add(tree, f.cutoff_version, packet, 46, 2)
    add(tree, f.retransmit, packet, 48, 1)
    add(tree, f.pad, packet, 49, 3)
    add(tree, f.seg_offset, packet, 52, 4)
    local segment, length = u32(packet, 52), u32(packet, 28)
    if not segment then
        return ""
    end
    local at = segment == MINUS_ONE and 4 or 52
    local offset = u32(packet, at)
    local offset_item = tree:add(f.offset, packet(at, 4), offset):set_generated()
    -- All that follows the header is data: there is no field for their length.
    local data_length = packet:reported_len() - HEADER_LENS[DATA]
    local captured = packet:captured_len() - HEADER_LENS[DATA]
    if captured > 0 then
        tree:add(f.data, packet(HEADER_LENS[DATA], captured))
    end
    tree:add(f.data_length, data_length):set_generated()
    if length == 0 or length > MAX_MESSAGE_LEN then
        length_item:add_proto_expert_info(
            e.length, ("Message length %.0f: expected 1 to %d"):format(length, MAX_MESSAGE_LEN))
    elseif offset >= length or offset + data_length > length then
        offset_item:add_proto_expert_info(
            e.beyond, ("Data %.0f to %.0f of a message of %d bytes"):format(offset, offset + data_length, length))
    end
    local resent = packet(48, 1):uint() ~= 0 and " retransmitted" or ""
    return (" %.0f+%d/%.0f%s%s"):format(offset, data_length, length, resent, acked and " ack " .. acked or "")
end

bodies[GRANT] = function(packet, tree)
    add(tree, f.grant_offset, packet, 28, 4)
    if not add(tree, f.grant_priority, packet, 32, 1) then
        return ""
    end
    return (" up to %.0f priority %d"):format(u32(packet, 28), packet(32, 1):uint())
end

bodies[RESEND] = function(packet, tree)
    add(tree, f.resend_offset, packet, 28, 4)
    add(tree, f.resend_length, packet, 32, 4)
    if not add(tree, f.resend_priority, packet, 36, 1) then
        return ""
    end
    local length = u32(packet, 32)
    local wanted = length == MINUS_ONE and "all" or ("%.0f"):format(length)
    return (" %.0f+%s priority %d"):format(u32(packet, 28), wanted, packet(36, 1):uint())
end

bodies[CUTOFFS] = function(packet, tree)
    for level = 0, PRIORITY_LEVELS - 1 do
        add(tree, f["cutoff" .. level], packet, 28 + 4 * level, 4)
    end
    return add(tree, f.cutoffs_version, packet, 60, 2) and " version " .. packet(60, 2):uint() or ""
end

bodies[ACK] = function(packet, tree)
    local item = add(tree, f.ack_count, packet, 28, 2)
    if not item then
        return ""
    end
    local count = packet(28, 2):uint()
    if count > MAX_ACKS then
        item:add_proto_expert_info(e.ack_count)
    end
    local info, at = "", 30
    for _ = 1, math.min(count, MAX_ACKS) do
        local id = dissect_ack(packet, tree, at)
        info = id and info .. " ack " .. id or info
        at = at + ACK_RECORD_LEN
    end
    if at < HEADER_LENS[ACK] then
        add(tree, f.ack_unused, packet, at, HEADER_LENS[ACK] - at)
    end
    return info
end

-- `packet`: the payload of an IP packet. Ethernet's padding is not in it: IP's dissector has cut it off.
local function dissect(packet, pinfo, root, hijacked)
    pinfo.cols.protocol = "Homa"
    local tree = root:add(homa, packet())
    local type, id = dissect_common(packet, pinfo, tree, hijacked)
    local name = NAMES[type] or type and ("type 0x%02x"):format(type) or "Homa"
    local need, got = HEADER_LENS[type] or COMMON_LEN, packet:reported_len()
    local info = name .. (id and " id " .. id or "")
    if bodies[type] then
        info = info .. bodies[type](packet, tree)
    end
    -- Errors of ICMP quote the start of a packet: that is no fault of the packet.
    if got < need and not pinfo.in_error_pkt then
        tree:add_proto_expert_info(e.short, ("%s header cut short: %d of %d bytes"):format(name, got, need))
        info = info .. " [short]"
    elseif type ~= DATA and NAMES[type] and packet:captured_len() > need then
        tree:add(f.trailer, packet(need))
    end
    tree:append_text(", " .. info)
    pinfo.cols.info = info
end

function homa.dissector(packet, pinfo, root)
    dissect(packet, pinfo, root, false)
end

-- Hijacked packets. Wireshark's TCP asks no other dissector about segments with RST, and Homa's all have it: so the
-- question is put before TCP, which gets all segments without the marks as ever.
local ip_protocols = DissectorTable.get("ip.proto")
local tcp = ip_protocols:get_dissector(IPPROTO_TCP)
local guise = Proto("homa_or_tcp", "Homa in the guise of TCP, or TCP")

function guise.dissector(packet, pinfo, root)
    local marked = packet:captured_len() >= 20
        and packet(13, 1):uint() == FLAGS_MARK
        and packet(18, 2):uint() == URGENT_MARK
    if marked then
        dissect(packet, pinfo, root, true)
    else
        -- `call` shows what is wrong with a malformed segment and then fails: the second time would be too much.
        pcall(tcp.call, tcp, packet, pinfo, root)
    end
end

ip_protocols:add(IPPROTO_HOMA, homa)
ip_protocols:add(IPPROTO_TCP, guise)
