import BenchSupport
import CLinux
import Glibc
import MATSignal

/// MA Queries, or DNS queries for as many names, over connected sockets: what has to keep up with a server's fastest path, and therefore
/// does next to nothing per query. Requests lie ready; sequence number and HoA are written into them; a datagram of many messages, or many
/// datagrams, leave in one call.
final class QueryStream: LoadStream {
    struct Setting: Sendable {
        var server: Endpoint
        /// The address to ask from; `nil` lets the kernel choose.
        var local: IPAddress?
        var messagesPerDatagram = 1
        var pace = Pace.window(256)
        var isDNS = false
        /// Answers before this time (`Ticks.wall`) are not counted: caches and frequencies settle.
        var countsFrom: UInt64 = 0
        /// When to stop asking.
        var end: UInt64 = .max
    }

    /// Datagrams that one call sends at most: the kernel's bound of segments in older versions.
    static let burstMax = 64
    private static let slotsMax = 1 << 18
    /// How long a closed loop waits for its window before it takes it for lost.
    private static let patience: UInt64 = 100_000_000
    /// How long after the end answers are waited for.
    private static let grace: UInt64 = 500_000_000

    private var setting: Setting
    private let socket: LoadSocket
    private let inbox: Inbox
    private let picks: UnsafeMutablePointer<IPAddress>
    private let names: UnsafeMutablePointer<UInt64>
    private let picksCount: Int
    private var nextPick = 0
    /// When the request of each sequence number was due; 0 once it is answered.
    private let slots: UnsafeMutablePointer<UInt64>
    private let slotMask: Int
    private var nextSequence: UInt64 = 1
    private var outstanding = 0
    private let buffer: UnsafeMutableRawPointer
    private let messageOctets: Int
    private let datagramOctets: Int
    private let canSegment: Bool
    private var started: UInt64 = 0
    private var paced: UInt64 = 0
    private var heardAt: UInt64 = 0
    private(set) var tally = Tally()
    private(set) var isDone = false

    init(_ setting: Setting, asked: Asked, offset: Int) throws {
        guard let first = asked.hoas.first else { throw BenchError("nothing to ask for") }
        self.setting = setting
        socket = try LoadSocket(connectedTo: setting.server, from: setting.local)
        inbox = Inbox(socket, wantsAddresses: false)
        picksCount = asked.hoas.count
        picks = .allocate(capacity: picksCount)
        names = .allocate(capacity: picksCount)
        for (index, hoa) in asked.hoas.enumerated() {
            picks.advanced(by: index).initialize(to: IPAddress(high: hoa.high.bigEndian, low: hoa.low.bigEndian))
            names.advanced(by: index).initialize(to: DNSName.label(Int(asked.numbers[index])))
        }
        nextPick = offset % picksCount
        let slotsCount = setting.isDNS ? 1 << 16 : Self.slotsMax
        slots = .allocate(capacity: slotsCount)
        slots.initialize(repeating: 0, count: slotsCount)
        slotMask = slotsCount - 1

        let template =
            setting.isDNS
            ? DNSName.query : try Self.query(cookieOf: socket, inbox, about: HomeAddress(first), number: UInt64(offset))
        messageOctets = template.count
        datagramOctets = template.count * setting.messagesPerDatagram
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: datagramOctets * Self.burstMax, alignment: 64)
        self.buffer = buffer
        for index in 0..<setting.messagesPerDatagram * Self.burstMax {
            put(template, at: buffer + index * template.count)
        }
        canSegment = socket.segment(octetsEach: datagramOctets)
    }

    deinit {
        picks.deallocate()
        names.deallocate()
        slots.deallocate()
        buffer.deallocate()
    }

    /// A query with the server's cookie for this socket, asked for until it comes.
    private static func query(cookieOf socket: LoadSocket, _ inbox: Inbox, about hoa: HomeAddress, number: UInt64) throws -> [UInt8] {
        let client = 0x6D61_742D_6C6F_6164 &+ number
        var query = SignalMessage(
            sequence: 0, .maQuery(MAQuery(cookie: Cookie(client: client, server: try AnyCookie.make()), hoa: hoa))
        ).octets
        for attempt in 0..<50 {
            // The first is short, so that the answer asks for a cookie; a server that has its reasons to say more gets room for it.
            let first = MAQuery(cookie: Cookie(client: client), hoa: hoa, padding: attempt % 2 == 0 ? nil : 600)
            let octets = SignalMessage(sequence: UInt32(attempt), .maQuery(first)).octets
            _ = Glibc.send(socket.descriptor, octets, octets.count, Int32(MSG_NOSIGNAL))
            inbox.wait(milliseconds: 100)
            var cookie: CookieOctets?
            for index in 0..<inbox.receive() { MessageView.forEach(in: inbox.datagram(index)) { cookie = $0.serverCookie ?? cookie } }
            guard let cookie else { continue }
            query.withUnsafeMutableBytes { if let base = $0.baseAddress { cookie.write(to: base + Offset.serverCookie) } }
            return query
        }
        throw BenchError("the server gives no cookie: is it there?")
    }

    /// Sets when answers begin to count and when asking ends; before the first turn.
    func schedule(countsFrom: UInt64, end: UInt64) {
        setting.countsFrom = countsFrom
        setting.end = end
    }

    // MARK: Turns

    func turn(_ now: UInt64) {
        guard !isDone else { return }
        if started == 0 {
            started = now
            heardAt = now
        }
        take()
        guard now < setting.end else {
            isDone = outstanding == 0 || now >= setting.end &+ Self.grace
            if isDone { tally.unanswered &+= UInt64(outstanding) }
            return
        }
        switch setting.pace {
        case .window(let window):
            // Half a window at a time, so that the server gets batches as from many clients at once.
            let room = window - outstanding
            if room >= max(setting.messagesPerDatagram, min(window / 2, Self.burstMax * setting.messagesPerDatagram)) {
                send(datagrams: min(Self.burstMax, room / setting.messagesPerDatagram), due: now, step: 0)
            } else if now > heardAt &+ Self.patience, outstanding > 0 {
                giveUp(now)
            }
        case .rate(let rate):
            let due = UInt64(Double(now &- started) * rate / 1e9)
            let waiting = Int(truncatingIfNeeded: due &- min(due, paced)) / setting.messagesPerDatagram
            if waiting > 0 {
                let count = min(Self.burstMax, waiting)
                send(datagrams: count, due: started &+ UInt64(Double(paced) * 1e9 / rate), step: 1e9 / rate)
                paced &+= UInt64(count * setting.messagesPerDatagram)
            }
        }
    }

    /// What is outstanding is lost; late answers to it are not counted.
    private func giveUp(_ now: UInt64) {
        tally.unanswered &+= UInt64(outstanding)
        outstanding = 0
        slots.update(repeating: 0, count: slotMask + 1)
        heardAt = now
    }

    private func send(datagrams: Int, due: UInt64, step: Double) {
        let count = datagrams * setting.messagesPerDatagram
        var message = buffer
        var pick = nextPick
        var sequence = nextSequence
        for index in 0..<count {
            let slot = Int(truncatingIfNeeded: sequence) & slotMask
            // An open loop that has come round finds requests here that nobody answered.
            if slots[slot] != 0 {
                tally.unanswered &+= 1
                outstanding -= 1
            }
            slots[slot] = due &+ UInt64(Double(index) * step)
            if setting.isDNS {
                message.storeBytes(of: UInt16(truncatingIfNeeded: sequence).bigEndian, as: UInt16.self)
                message.storeBytes(of: names[pick], toByteOffset: DNSName.labelOffset, as: UInt64.self)
            } else {
                message.storeBytes(of: UInt32(truncatingIfNeeded: sequence).bigEndian, toByteOffset: Offset.sequence, as: UInt32.self)
                message.storeBytes(of: picks[pick].high, toByteOffset: Offset.hoa, as: UInt64.self)
                message.storeBytes(of: picks[pick].low, toByteOffset: Offset.hoa + 8, as: UInt64.self)
            }
            message += messageOctets
            sequence &+= 1
            pick = pick + 1 == picksCount ? 0 : pick + 1
        }
        nextPick = pick
        nextSequence = sequence
        outstanding += count
        tally.sent &+= UInt64(count)
        if canSegment {
            // More than one call only where datagrams are so large that a burst exceeds what IP carries.
            let each = max(1, min(datagrams, 65_000 / datagramOctets))
            var first = 0
            while first < datagrams {
                let part = min(each, datagrams - first)
                _ = Glibc.send(socket.descriptor, buffer + first * datagramOctets, part * datagramOctets, Int32(MSG_NOSIGNAL))
                first += part
            }
        } else {
            for index in 0..<datagrams {
                _ = Glibc.send(socket.descriptor, buffer + index * datagramOctets, datagramOctets, Int32(MSG_NOSIGNAL))
            }
        }
    }

    private func take() {
        while true {
            let count = inbox.receive()
            guard count > 0 else { return }
            let now = Ticks.wall()
            heardAt = now
            for index in 0..<count {
                let datagram = inbox.datagram(index)
                if setting.isDNS {
                    guard datagram.count >= 12 else { continue }
                    let id = UInt16(bigEndian: datagram.loadUnaligned(as: UInt16.self))
                    // Response code, and "not found" for an answer section without records.
                    let code = datagram[3] & 0x0F
                    settle(Int(id), code == 0 && datagram[7] == 0 ? 2 : code, now)
                } else {
                    MessageView.forEach(in: datagram) { settle(Int($0.sequence) & slotMask, $0.code, now) }
                }
            }
            if count < Inbox.datagramsMax { return }
        }
    }

    @inline(__always)
    private func settle(_ slot: Int, _ code: UInt8, _ now: UInt64) {
        let due = slots[slot]
        guard due != 0, outstanding > 0 else { return }
        slots[slot] = 0
        outstanding -= 1
        guard now >= setting.countsFrom, now < setting.end else { return }
        tally.codes[Int(code)] &+= 1
        tally.latency.record(now > due ? now - due : 0)
    }
}

/// Names for a DNS server with as many records: `00000000.bench.` with the node's number in hexadecimal, type A.
enum DNSName {
    static let labelOffset = 13
    static let query: [UInt8] =
        [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 8] + Array("00000000".utf8) + [5] + Array("bench".utf8) + [0, 0, 1, 0, 1]

    /// The eight digits as they lie in memory.
    static func label(_ node: Int) -> UInt64 {
        let digits = Array("0123456789abcdef".utf8)
        return (0..<8).reduce(0) { $0 | UInt64(digits[node >> ((7 - $1) * 4) & 0xF]) << UInt64($1 * 8) }
    }

    /// A zone that has all of them.
    static func zone(of count: Int) -> String {
        var text = "$TTL 300\n$ORIGIN bench.\n@ SOA ns.bench. admin.bench. 1 3600 600 86400 300\n@ NS ns.bench.\nns A 127.0.0.1\n"
        text.reserveCapacity(count * 28)
        for node in 0..<count {
            let digits = withUnsafeBytes(of: label(node)) { String(decoding: $0, as: UTF8.self) }
            text += "\(digits) A 10.\(node >> 16 & 0xFF).\(node >> 8 & 0xFF).\(node & 0xFF)\n"
        }
        return text
    }
}
