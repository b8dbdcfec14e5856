import MATCore

/// The lines of one server in a zone file, between two comments by which they are found again: what is added behind older ones, as after a change of
/// keys, would leave both in force.
public struct ZoneBlock: Hashable, Sendable {
    /// The server's own name: several servers have a block each.
    public var target: DomainName
    public var lines: [String]

    public init(target: DomainName, lines: [String]) {
        self.target = target
        self.lines = lines
    }

    public var begin: String { "; begin mat zone \(target)" }
    public var end: String { "; end mat zone \(target)" }

    public var written: [String] { [begin] + lines + [end] }

    /// A zone file with this block in the place of the earlier one, or at its end.
    public struct Replaced: Hashable, Sendable {
        public var text: String
        /// Whether there was one.
        public var wasThere: Bool
        /// Lines elsewhere that say where mapping servers are, by their numbers in the new text: of other servers, or old ones without a block.
        public var strays: [Int]
    }

    /// - Returns: `nil` if a block begins and does not end.
    public func replaced(in text: String) -> Replaced? {
        var before: [String] = []
        var after: [String] = []
        var isInside = false
        var wasThere = false
        // The last element is what is behind the last line's end.
        var old = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        if old.last == "" { old.removeLast() }
        for line in old {
            let word = line.trimmingSpaces
            if word == begin {
                guard !isInside else { return nil }
                isInside = true
                // A second block of the same server goes.
                wasThere = true
            } else if word == end {
                isInside = false
            } else if !isInside {
                if wasThere { after.append(line) } else { before.append(line) }
            }
        }
        guard !isInside else { return nil }
        let all = before + written + after
        let own = (before.count + 1)...(before.count + written.count)
        // Blocks of other servers are as they should be.
        var strays: [Int] = []
        var foreign: String?
        for (index, line) in all.enumerated() where !own.contains(index + 1) {
            let word = line.trimmingSpaces
            if word.hasPrefix("; begin mat zone ") { foreign = word }
            if word.hasPrefix("; end mat zone ") { foreign = nil }
            if foreign == nil, Self.namesServer(word) { strays.append(index + 1) }
        }
        return Replaced(text: all.joined(separator: "\n") + "\n", wasThere: wasThere, strays: strays)
    }

    private static func namesServer(_ line: String) -> Bool {
        guard !line.hasPrefix(";") else { return false }
        let words = line.split { $0 == " " || $0 == "\t" }
        return words.contains("TYPE\(IMSRecord.type)") || words.contains("SRV") && line.contains("_mat-ims._udp")
    }
}

extension String {
    fileprivate var trimmingSpaces: String {
        func isSpace(_ character: Character) -> Bool { character == " " || character == "\t" || character == "\r" }
        return String(String(self.drop(while: isSpace).reversed()).drop(while: isSpace).reversed())
    }
}
