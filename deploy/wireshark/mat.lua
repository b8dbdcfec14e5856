-- Wireshark and tshark: MAT signalling (all sixteen messages) and encapsulated packets.
--
--   tshark -X lua_script:mat.lua -f 'udp portrange 6288-6290' -i any
--   or copy it to ~/.local/lib/wireshark/plugins, for Wireshark too
--
-- The octets are those of docs/protocol.md; sections are cited as there. Filters: mat.type == 5, mat.hoa == "192.0.2.10", mat.code != 0,
-- mat.locator contains "198.51.100.7", mat.time > 0.25, mat.encapsulated, _ws.expert.

local mat = Proto("mat", "MAT signalling")

-- MARK: Names (sections 2 and 3)

local TYPES = {
    [1] = "IMS Update", [2] = "IMS Update Reply", [3] = "MA Query", [4] = "MA Answer", [5] = "HA Notify", [6] = "HA Notify Ack",
    [7] = "HA Query", [8] = "HA Answer", [9] = "MA Notify", [10] = "MA Notify Ack", [11] = "Bind", [12] = "Bind Ack",
    [13] = "Path Probe", [14] = "Path Answer", [15] = "Join", [16] = "Join Reply",
}

local CODES = {
    [0] = "ok", [1] = "authentication failed", [2] = "not found", [3] = "malformed", [4] = "not authoritative", [5] = "stale", [6] = "refused",
    [7] = "try later", [8] = "upstream failed", [9] = "cookie required", [10] = "unsupported",
}

local KINDS = {
    [0x0001] = "PAD", [0x0002] = "COOKIE", [0x0003] = "HOA", [0x0004] = "MOA", [0x0005] = "PEER-HOA", [0x0006] = "MAPPING",
    [0x0007] = "SIGNATURE", [0x0008] = "CERTIFICATE", [0x0009] = "LIFETIME", [0x000A] = "SUBSCRIBE", [0x000B] = "LOCATOR-PROOF",
    [0x000C] = "OBSERVED", [0x000D] = "CERT-ID", [0x000F] = "TEXT", [0x0010] = "XOBSERVED", [0x0011] = "CHALLENGE",
    [0x0012] = "PATH-SIGNATURE", [0x0013] = "CANDIDATES", [0x0014] = "ROLE", [0x0015] = "ENDPOINT-PROOF", [0x0016] = "PUBLIC-KEY",
    [0x0017] = "TOKEN-PROOF", [0x0018] = "WANTED",
}

local LOCATOR_KINDS = { [0] = "mobile address", [1] = "endpoint", [2] = "relay" }

-- MARK: Fields

local f = {
    type = ProtoField.uint8("mat.type", "Type", base.DEC, TYPES),
    code = ProtoField.uint8("mat.code", "Code", base.DEC, CODES),
    flags = ProtoField.uint8("mat.flags", "Flags", base.HEX),
    options = ProtoField.bool("mat.flags.x", "Body is options", 8, nil, 0x01),
    length = ProtoField.uint8("mat.length", "Length in words of 4 octets", base.DEC),
    sequence = ProtoField.uint32("mat.seq", "Sequence number", base.HEX),
    option = ProtoField.none("mat.option", "Option"),
    kind = ProtoField.uint16("mat.option.kind", "Kind", base.HEX, KINDS),
    option_length = ProtoField.uint16("mat.option.length", "Length of value", base.DEC),
    value = ProtoField.bytes("mat.option.value", "Value"),
    client_cookie = ProtoField.bytes("mat.cookie.client", "Client cookie"),
    server_cookie = ProtoField.bytes("mat.cookie.server", "Server cookie"),
    cookie_time = ProtoField.absolute_time("mat.cookie.time", "Server cookie made at"),
    hoa = ProtoField.string("mat.hoa", "Home address"),
    moa = ProtoField.string("mat.moa", "Mobile address"),
    peer_hoa = ProtoField.string("mat.peer_hoa", "Peer's home address"),
    prefix_length = ProtoField.uint8("mat.prefix_length", "Prefix length", base.DEC),
    has_endpoints = ProtoField.bool("mat.mapping.e", "Has endpoints (E)", 8, nil, 0x01),
    record_sequence = ProtoField.uint64("mat.mapping.seq", "Sequence of the record", base.DEC),
    record_lifetime = ProtoField.uint32("mat.mapping.lifetime", "Lifetime of the record in s", base.DEC),
    issued = ProtoField.absolute_time("mat.mapping.issued", "Issued at"),
    locator = ProtoField.string("mat.locator", "Locator"),
    preference = ProtoField.uint8("mat.locator.preference", "Preference", base.DEC),
    locator_kind = ProtoField.uint8("mat.locator.kind", "Kind of locator", base.DEC, LOCATOR_KINDS),
    signature = ProtoField.bytes("mat.signature", "Signature (Ed25519)"),
    not_before = ProtoField.absolute_time("mat.certificate.not_before", "Not before"),
    not_after = ProtoField.absolute_time("mat.certificate.not_after", "Not after"),
    key = ProtoField.bytes("mat.key", "Public key (Ed25519)"),
    ims_key = ProtoField.bytes("mat.certificate.ims_key", "Id of the IMS's key"),
    certificate_id = ProtoField.bytes("mat.certificate.id", "Certificate's id"),
    lifetime = ProtoField.uint32("mat.lifetime", "Lifetime in s", base.DEC),
    subscribe = ProtoField.uint32("mat.subscribe", "Subscription in s", base.DEC),
    text = ProtoField.string("mat.text", "Text"),
    observed = ProtoField.string("mat.observed", "Source that the responder saw"),
    proof = ProtoField.string("mat.proof", "Proof of"),
    challenge = ProtoField.bytes("mat.challenge", "Challenge"),
    candidate = ProtoField.string("mat.candidate", "Candidate"),
    role = ProtoField.uint32("mat.role", "Role", base.HEX),
    relay = ProtoField.bool("mat.role.relay", "Relay", 32, nil, 1),
    gateway = ProtoField.bool("mat.role.gateway", "Gateway for home addresses routed to it", 32, nil, 2),
    translation = ProtoField.bool("mat.role.translation", "Gateway with source translation", 32, nil, 4),
    token = ProtoField.bytes("mat.token.id", "Token's id"),
    hmac = ProtoField.bytes("mat.token.hmac", "HMAC-SHA-256"),
    wanted = ProtoField.string("mat.wanted", "Wanted"),
    draft = ProtoField.bytes("mat.draft", "Body of the draft (section 9)"),
    padding = ProtoField.bytes("mat.padding", "Padding"),
    encapsulated = ProtoField.none("mat.encapsulated", "Encapsulated packet (section 11.2)"),
    response_to = ProtoField.framenum("mat.response_to", "Answer to the request in", base.NONE, frametype.REQUEST),
    time = ProtoField.relative_time("mat.time", "Time since the request"),
}

local list = {}
for _, field in pairs(f) do list[#list + 1] = field end
mat.fields = list

local e = {
    malformed = ProtoExpert.new("mat.malformed", "Malformed", expert.group.MALFORMED, expert.severity.ERROR),
    unknown = ProtoExpert.new("mat.unknown", "Not known here", expert.group.UNDECODED, expert.severity.NOTE),
    refused = ProtoExpert.new("mat.refused", "Refused", expert.group.RESPONSE_CODE, expert.severity.NOTE),
}
mat.experts = { e.malformed, e.unknown, e.refused }

-- MARK: Addresses (section 1: always 16 octets)

--- The octets of a range as numbers.
local function octets(range)
    local values = {}
    local bytes = range:bytes()
    for index = 0, range:len() - 1 do values[index + 1] = bytes:get_index(index) end
    return values
end

local function is_ipv4(o)
    for index = 1, 10 do if o[index] ~= 0 then return false end end
    return o[11] == 0xff and o[12] == 0xff
end

--- An address as people write it: IPv4-mapped ones as IPv4, others as RFC 5952 says.
local function address_text(o)
    if is_ipv4(o) then return string.format("%d.%d.%d.%d", o[13], o[14], o[15], o[16]) end
    local groups = {}
    for index = 1, 16, 2 do groups[#groups + 1] = o[index] * 256 + o[index + 1] end
    local first, longest, index = 0, 1, 1
    while index <= 8 do
        local count = 0
        while index + count <= 8 and groups[index + count] == 0 do count = count + 1 end
        if count > longest then first, longest = index, count end
        index = index + math.max(count, 1)
    end
    local text, position = "", 1
    while position <= 8 do
        if position == first then
            text = text .. "::"
            position = position + longest
        else
            if text ~= "" and text:sub(-1) ~= ":" then text = text .. ":" end
            text = text .. string.format("%x", groups[position])
            position = position + 1
        end
    end
    return text
end

local function endpoint_text(o, port)
    local text = address_text(o)
    return (is_ipv4(o) and text or "[" .. text .. "]") .. ":" .. port
end

--- A prefix in its own family's bits.
local function prefix_text(o, length)
    return address_text(o) .. "/" .. (is_ipv4(o) and length - 96 or length)
end

--- Whether a prefix length says one address.
local function host_text(o, length)
    return length == 128 and address_text(o) or prefix_text(o, length)
end

local function milliseconds(range)
    local value = range:uint64()
    return NSTime.new((value / 1000):tonumber(), (value % 1000):tonumber() * 1000000)
end

-- MARK: Requests and answers (a requester matches type, sequence number and client cookie: section 6)

local last_request, request_of_frame = {}, {}

function mat.init() last_request, request_of_frame = {}, {} end

local ANSWERS = { [2] = 1, [4] = 3, [6] = 5, [8] = 7, [10] = 9, [12] = 11, [14] = 13, [16] = 15 }

local function track(message, pinfo, tree)
    local cookie = message.cookie and message.cookie:bytes():tohex() or ""
    local request = ANSWERS[message.type]
    local key = (request or message.type) .. "/" .. message.sequence .. "/" .. cookie
    if not request then
        if not pinfo.visited then last_request[key] = { frame = pinfo.number, time = pinfo.rel_ts } end
        return
    end
    local index = pinfo.number .. "/" .. key
    if not pinfo.visited then request_of_frame[index] = last_request[key] end
    local found = request_of_frame[index]
    if not found then return end
    tree:add(f.response_to, found.frame):set_generated()
    local passed = math.max(pinfo.rel_ts - found.time, 0)
    tree:add(f.time, NSTime.new(math.floor(passed), math.floor((passed % 1) * 1e6 + 0.5) * 1000)):set_generated()
end

-- MARK: Values of options

--- Adds a mapping record (section 4, endpoints 11.1); gives what the info column says of it.
local function mapping(range, tree, malformed)
    if range:len() < 40 then return malformed("a mapping of fewer than 40 octets") end
    local hoa, length, has_endpoints = octets(range(0, 16)), range(16, 1):uint(), range(17, 1):uint() % 2 == 1
    local count, size = range(18, 2):uint(), has_endpoints and 24 or 20
    tree:add(f.hoa, range(0, 16), host_text(hoa, length))
    tree:add(f.prefix_length, range(16, 1))
    tree:add(f.has_endpoints, range(17, 1))
    tree:add(f.record_sequence, range(20, 8))
    tree:add(f.record_lifetime, range(28, 4))
    tree:add(f.issued, range(32, 8), milliseconds(range(32, 8)))
    if count > 8 then malformed("a mapping of more than 8 locators") end
    if range:len() ~= 40 + count * size then return malformed("a mapping of " .. count .. " locators in " .. range:len() .. " octets") end
    local places = {}
    for index = 0, count - 1 do
        local at = range(40 + index * size, size)
        local address, bits, kind = octets(at(0, 16)), at(16, 1):uint(), has_endpoints and at(18, 1):uint() or 0
        local text = host_text(address, bits)
        if kind ~= 0 then text = endpoint_text(address, at(20, 2):uint()) end
        if kind == 2 then text = "relay " .. text end
        local item = tree:add(f.locator, at, text)
        item:add(f.prefix_length, at(16, 1))
        item:add(f.preference, at(17, 1))
        if has_endpoints then item:add(f.locator_kind, at(18, 1)) end
        places[#places + 1] = text
    end
    return host_text(hoa, length) .. " at " .. (count == 0 and "no place (withdrawn)" or table.concat(places, ", "))
end

local function certificate(range, tree, malformed)
    if range:len() ~= 140 then return malformed("a certificate of " .. range:len() .. " octets instead of 140") end
    tree:add(f.hoa, range(0, 16), host_text(octets(range(0, 16)), range(16, 1):uint()))
    tree:add(f.prefix_length, range(16, 1))
    tree:add(f.not_before, range(20, 8), milliseconds(range(20, 8)))
    tree:add(f.not_after, range(28, 8), milliseconds(range(28, 8)))
    tree:add(f.key, range(36, 32))
    tree:add(f.ims_key, range(68, 8))
    tree:add(f.signature, range(76, 64))
end

--- Client cookie, and server cookie if there is one (section 6).
local function cookie(range, tree)
    tree:add(f.client_cookie, range(0, 8))
    if range:len() < 24 then return end
    tree:add(f.server_cookie, range(8, 16))
    tree:add(f.cookie_time, range(12, 4))
end

--- Whether a value has one of the lengths that its kind may have.
local LENGTHS = {
    [0x0002] = { 8, 24 }, [0x0003] = { 16 }, [0x0004] = { 16 }, [0x0005] = { 16 }, [0x0007] = { 64 }, [0x0009] = { 4 }, [0x000A] = { 4 },
    [0x000B] = { 40 }, [0x000C] = { 20 }, [0x000D] = { 8 }, [0x0010] = { 20 }, [0x0011] = { 24 }, [0x0012] = { 64 }, [0x0014] = { 4 },
    [0x0015] = { 44 }, [0x0016] = { 32 }, [0x0017] = { 40 }, [0x0018] = { 20 },
}

local function has_its_length(kind, length)
    local allowed = LENGTHS[kind]
    if not allowed then return true end
    for _, one in ipairs(allowed) do if one == length then return true end end
    return false
end

--- How each kind is shown. Each gets the value, its tree, the message, and what to call if the value is malformed; it gives the words that the
--- info column has for it, if any.
local SHOW = {
    [0x0001] = function(range, tree) tree:add(f.padding, range) end,
    [0x0002] = function(range, tree) cookie(range, tree) end,
    [0x0003] = function(range, tree)
        local text = address_text(octets(range))
        tree:add(f.hoa, range, text)
        return text
    end,
    [0x0004] = function(range, tree)
        local text = address_text(octets(range))
        tree:add(f.moa, range, text)
        return text
    end,
    [0x0005] = function(range, tree)
        local text = address_text(octets(range))
        tree:add(f.peer_hoa, range, text)
        return "peer " .. text
    end,
    [0x0006] = function(range, tree, _, malformed) return mapping(range, tree, malformed) end,
    [0x0007] = function(range, tree) tree:add(f.signature, range) end,
    [0x0008] = function(range, tree, _, malformed) return certificate(range, tree, malformed) end,
    [0x0009] = function(range, tree) tree:add(f.lifetime, range) end,
    [0x000A] = function(range, tree)
        tree:add(f.subscribe, range)
        return "subscribe " .. range:uint() .. " s"
    end,
    [0x000B] = function(range, tree)
        tree:add(f.proof, range(0, 16), address_text(octets(range(0, 16))))
        cookie(range(16, 24), tree)
    end,
    [0x000C] = function(range, tree) tree:add(f.observed, range, endpoint_text(octets(range(0, 16)), range(16, 2):uint())) end,
    [0x000D] = function(range, tree) tree:add(f.certificate_id, range) end,
    [0x000F] = function(range, tree)
        local text = range:string(ENC_UTF_8)
        tree:add(f.text, range, text)
        return '"' .. text .. '"'
    end,
    [0x0010] = function(range, tree, message, malformed)
        if not message.cookie then return malformed("XOBSERVED without a COOKIE to read it by") end
        local key, address = octets(message.cookie), octets(range(0, 16))
        for index = 1, 16 do address[index] = bit.bxor(address[index], key[(index - 1) % 8 + 1]) end
        local text = endpoint_text(address, bit.bxor(range(16, 2):uint(), key[1] * 256 + key[2]))
        tree:add(f.observed, range, text)
        return "seen as " .. text
    end,
    [0x0011] = function(range, tree) tree:add(f.challenge, range) end,
    [0x0012] = function(range, tree) tree:add(f.signature, range) end,
    [0x0013] = function(range, tree, _, malformed)
        local length = range:len()
        if length < 20 or length > 160 or length % 20 ~= 0 then return malformed("CANDIDATES of " .. length .. " octets") end
        local texts = {}
        for at = 0, length - 20, 20 do
            local text = endpoint_text(octets(range(at, 16)), range(at + 16, 2):uint())
            tree:add(f.candidate, range(at, 20), text):add(f.preference, range(at + 18, 1))
            texts[#texts + 1] = text
        end
        return "candidates " .. table.concat(texts, ", ")
    end,
    [0x0014] = function(range, tree)
        local item = tree:add(f.role, range)
        item:add(f.relay, range)
        item:add(f.gateway, range)
        item:add(f.translation, range)
    end,
    [0x0015] = function(range, tree)
        tree:add(f.proof, range(0, 18), endpoint_text(octets(range(0, 16)), range(16, 2):uint()))
        cookie(range(20, 24), tree)
    end,
    [0x0016] = function(range, tree) tree:add(f.key, range) end,
    [0x0017] = function(range, tree)
        tree:add(f.token, range(0, 8))
        tree:add(f.hmac, range(8, 32))
    end,
    [0x0018] = function(range, tree)
        local text = host_text(octets(range(0, 16)), range(16, 1):uint())
        tree:add(f.wanted, range, text)
        return "wanted " .. text
    end,
}

-- MARK: A message

--- The options of a body as {kind, value, whole}; and what is wrong, if something is.
local function options(body)
    local found, at = {}, 0
    while at < body:len() do
        if body:len() - at < 4 then return found, "an option's header runs past the end of the message" end
        local kind, length = body(at, 2):uint(), body(at + 2, 2):uint()
        local padded = 4 + math.floor((length + 3) / 4) * 4
        if at + padded > body:len() then return found, "an option runs past the end of the message" end
        found[#found + 1] = {
            kind = kind, length = length, whole = body(at, padded), value = length > 0 and body(at + 4, length) or nil,
            padding = padded > 4 + length and body(at + 4 + length, padded - 4 - length) or nil,
        }
        at = at + padded
    end
    return found, nil
end

local function show_option(option, message, tree)
    local name = KINDS[option.kind] or string.format("kind 0x%04x", option.kind)
    local item = tree:add(f.option, option.whole)
    item:set_text(name)
    item:add(f.kind, option.whole(0, 2))
    item:add(f.option_length, option.whole(2, 2))
    local function malformed(why)
        item:add_proto_expert_info(e.malformed, name .. ": " .. why)
        return nil
    end
    if option.padding then
        for _, octet in ipairs(octets(option.padding)) do if octet ~= 0 then malformed("padding that is not zero") break end end
    end
    if not KINDS[option.kind] then
        if option.value then item:add(f.value, option.value) end
        local rule = option.kind >= 0x8000 and "critical: a receiver that does not know it answers code 10" or "skipped by receivers that do not know it"
        item:add_proto_expert_info(e.unknown, name .. ": " .. rule)
        return nil
    end
    if not option.value then
        if option.kind ~= 0x0001 and option.kind ~= 0x000F then malformed("no value") end
        return nil
    end
    if not has_its_length(option.kind, option.length) then
        item:add(f.value, option.value)
        return malformed("a value of " .. option.length .. " octets")
    end
    local words = SHOW[option.kind](option.value, item, message, malformed)
    if words then item:append_text(": " .. words) end
    return words
end

--- Which of the three a Bind is, its options say (section 11.3).
local function bind_name(options)
    local has = {}
    for _, option in ipairs(options) do has[option.kind] = option end
    if not has[0x0003] then return "Bind (ask)" end
    if not has[0x0012] then return "Bind (refresh)" end
    local lifetime = has[0x0009]
    return lifetime and lifetime.length == 4 and lifetime.value:uint() == 0 and "Bind (end)" or "Bind"
end

--- Shows the message at the beginning of a range; gives its octets, or nil if nothing after it can be read.
local function show_message(range, pinfo, tree, infos)
    if range:len() < 8 then
        tree:add(mat, range):add_proto_expert_info(e.malformed, "fewer than 8 octets are left")
        infos[#infos + 1] = "malformed"
        return nil
    end
    local message = { type = range(0, 1):uint(), code = range(1, 1):uint(), sequence = range(4, 4):uint() }
    local name, length = TYPES[message.type] or ("type " .. message.type), range(3, 1):uint() * 4
    local fits = length >= 8 and length <= range:len()
    local whole = fits and range(0, length) or range
    local item = tree:add(mat, whole)
    item:set_text("MAT " .. name)
    item:add(f.type, range(0, 1))
    local code = item:add(f.code, range(1, 1))
    item:add(f.flags, range(2, 1)):add(f.options, range(2, 1))
    item:add(f.length, range(3, 1))
    item:add(f.sequence, range(4, 4))
    local words = { name }
    if ANSWERS[message.type] then
        local answer = CODES[message.code] or ("code " .. message.code)
        words[#words + 1] = answer
        if message.code ~= 0 and message.code ~= 9 then code:add_proto_expert_info(e.refused, name .. ": " .. answer) end
    end
    if not TYPES[message.type] then item:add_proto_expert_info(e.unknown, name) end
    if not fits then
        item:add_proto_expert_info(e.malformed, "a length of " .. length .. " octets where " .. range:len() .. " are left")
        infos[#infos + 1] = table.concat(words, " ") .. " (malformed)"
        return nil
    end
    if range(2, 1):uint() % 2 == 0 then
        if length > 8 then item:add(f.draft, range(8, length - 8)) end
        infos[#infos + 1] = table.concat(words, " ") .. " (draft)"
        return length
    end
    local found, wrong = {}, nil
    if length > 8 then found, wrong = options(range(8, length - 8)) end
    for _, option in ipairs(found) do
        if option.kind == 0x0002 and option.length >= 8 and not message.cookie then message.cookie = option.value(0, 8) end
    end
    local said = {}
    for _, option in ipairs(found) do
        local words = show_option(option, message, item)
        -- A record says again whose it is.
        if words and option.kind == 0x0006 and said[#said] and words:find(said[#said] .. " at ", 1, true) == 1 then said[#said] = nil end
        if words then said[#said + 1] = words end
    end
    if message.type == 11 then words[1] = bind_name(found) end
    if #said > 0 then words[#words] = words[#words] .. ": " .. table.concat(said, "; ") end
    if wrong then item:add_proto_expert_info(e.malformed, wrong) end
    track(message, pinfo, item)
    local text = table.concat(words, " ")
    item:set_text("MAT " .. text)
    infos[#infos + 1] = text .. (wrong and " (malformed)" or "")
    return length
end

-- MARK: A datagram

local ipv4, ipv6 = Dissector.get("ip"), Dissector.get("ipv6")

--- Section 11.2: the first octet says what a payload is.
function mat.dissector(tvb, pinfo, root)
    if tvb:len() == 0 then return 0 end
    local first = tvb(0, 1):uint()
    if first >= 0x40 then
        local version = math.floor(first / 16)
        local inner = version == 4 and ipv4 or version == 6 and ipv6
        if not inner then return 0 end
        root:add(f.encapsulated, tvb())
        local outer = tostring(pinfo.src) .. " -> " .. tostring(pinfo.dst)
        inner:call(tvb, pinfo, root)
        pinfo.cols.info:append(" [encapsulated, " .. outer .. "]")
        return tvb:len()
    end
    pinfo.cols.protocol = "MAT"
    local infos, at, count = {}, 0, 0
    while at < tvb:len() do
        -- In-path messages are filled up to the size that they probe.
        if at > 0 and tvb(at, 1):uint() == 0 then
            root:add(f.padding, tvb(at))
            break
        end
        count = count + 1
        local length = show_message(tvb(at), pinfo, root, infos)
        if not length then break end
        at = at + length
    end
    pinfo.cols.info = table.concat(infos, " | ")
    return tvb:len()
end

local ports = DissectorTable.get("udp.port")
for port = 6288, 6290 do ports:add(port, mat) end
