/// What a control group of ours is called: `mat-NETWORK-MARK-VIA`, so that an agent finds again what an earlier one has left, and no agent takes
/// another's: control groups are the whole host's, agents are of one network namespace each.
package struct GroupName: Hashable, Sendable {
    /// The network namespace, by its number.
    package var network: UInt64
    package var mark: UInt32
    package var via: ProgramVia

    package init(network: UInt64, mark: UInt32, via: ProgramVia) {
        self.network = network
        self.mark = mark
        self.via = via
    }

    package func write() -> String { "mat-\(network)-\(String(mark, radix: 16))-\(via.write())" }

    package static func parse(_ text: some StringProtocol) -> GroupName? {
        let parts = text.split(separator: "-", maxSplits: 3, omittingEmptySubsequences: false)
        guard parts.count == 4, parts[0] == "mat", let network = UInt64(parts[1]), let mark = UInt32(parts[2], radix: 16),
            let via = ProgramVia.parse(parts[3])
        else { return nil }
        return GroupName(network: network, mark: mark, via: via)
    }
}

/// Where the control groups are, and where among them a program's belongs.
package enum GroupPlace {
    /// Groups within groups that are looked through.
    package static let depthMax = 32

    /// The mount point of the control groups of version 2, from /proc/self/mountinfo; in hybrid set-ups it is beside those of version 1.
    ///
    /// A line: number, parent, device, root, mount point, options, other fields, `-`, type, source, options.
    package static func mount(_ text: some StringProtocol) -> String? {
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard let dash = words.firstIndex(of: "-"), words.indices.contains(dash + 1), words[dash + 1] == "cgroup2", words.count > 4,
                words[3] == "/"
            else { continue }
            return unescaped(words[4])
        }
        return nil
    }

    /// Spaces and the like are written as a backslash and three octal digits.
    private static func unescaped(_ word: some StringProtocol) -> String {
        var octets: [UInt8] = []
        var rest = Array(word.utf8)[...]
        while let first = rest.first {
            let digits = rest.dropFirst().prefix(3)
            if first == UInt8(ascii: "\\"), digits.count == 3, let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 8) {
                octets.append(value)
                rest = rest.dropFirst(4)
            } else {
                octets.append(first)
                rest = rest.dropFirst()
            }
        }
        return String(decoding: octets, as: UTF8.self)
    }

    /// The group of version 2 that a process is in, from /proc/PID/cgroup: the line `0::PATH`.
    ///
    /// - Returns: `nil` if it is in none that this process sees.
    package static func path(_ text: some StringProtocol) -> String? {
        for line in text.split(separator: "\n") where line.hasPrefix("0::/") {
            var path = String(line.dropFirst(3))
            if path.hasSuffix(" (deleted)") { path.removeLast(10) }
            return path.split(separator: "/").contains("..") ? nil : path
        }
        return nil
    }

    /// The group above which a program's may be made: where it is, so that what limits it there, and what ends it with its session, goes on to;
    /// but never within another of ours, whose mark would count as well.
    package static func base(of path: String, network: UInt64) -> String {
        let parts = path.split(separator: "/")
        let ours = parts.firstIndex { GroupName.parse($0)?.network == network }
        return "/" + parts.prefix(upTo: ours ?? parts.endIndex).joined(separator: "/")
    }

    /// That group and those above it: where the kernel does not allow one (a directory of its user's own, threads by themselves), one higher is
    /// tried.
    package static func candidates(from base: String) -> [String] {
        var parts = base.split(separator: "/").map(String.init)
        var result = ["/" + parts.joined(separator: "/")]
        while !parts.isEmpty {
            parts.removeLast()
            result.append("/" + parts.joined(separator: "/"))
        }
        return result
    }

    package static func child(_ parent: String, _ name: String) -> String { parent == "/" ? "/\(name)" : "\(parent)/\(name)" }

    package static func parent(_ path: String) -> String { "/" + path.split(separator: "/").dropLast().joined(separator: "/") }
}

/// Whose a process is, from /proc/PID/status.
package struct ProcessOwner: Hashable, Sendable {
    /// Real, effective, saved, file system's.
    package var users: Set<UInt32>
    package var effective: UInt32

    /// - Returns: `nil` for a text without them.
    package init?(status: some StringProtocol) {
        guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix("Uid:") }) else { return nil }
        let numbers = line.dropFirst(4).split(whereSeparator: \.isWhitespace).map { UInt32($0) }
        guard numbers.count == 4, !numbers.contains(nil) else { return nil }
        users = Set(numbers.compactMap { $0 })
        effective = numbers[1] ?? 0
    }

    /// Root may move every process, others what is all theirs: of a set-user-ID program part is another's.
    package func maySteer(_ user: UInt32) -> Bool { user == 0 || users == [user] }
}
