/// What a program's sockets start from now on.
public struct SteerReport: Codable, Hashable, Sendable {
    public var process: Int32
    public var via: SteerRequest.Via
    /// Empty of `plain`.
    public var homes: [String]

    public init(process: Int32, via: SteerRequest.Via, homes: [String]) {
        self.process = process
        self.via = via
        self.homes = homes
    }
}

/// Programs whose sockets start from other addresses than those of the rest of the host.
public struct ProgramsReport: Codable, Hashable, Sendable {
    public struct Program: Codable, Hashable, Sendable {
        public var process: Int32
        /// By user ID.
        public var user: UInt32
        /// Its command line, cut off at `commandCharactersMax`.
        public var command: String

        public static let commandCharactersMax = 200

        public init(process: Int32, user: UInt32, command: String) {
            self.process = process
            self.user = user
            self.command = command
        }
    }

    public struct Socket: Codable, Hashable, Sendable {
        /// `tcp` or `udp`.
        public var kind: String
        /// As ss(8) names it: `established`, `listen`, `unconnected` and so on.
        public var state: String
        public var local: String
        @OrNull public var remote: String?
        /// How its packets go; `nil` of those that go plain, or to nobody.
        @OrNull public var path: PeerReport.Path?
        /// Where they go, if that is another place than `remote`.
        @OrNull public var locator: String?
        /// In words, of a socket that starts from a HoA and has no path.
        @OrNull public var reason: String?
        public var user: UInt32
        /// By which /proc/PID/fd names it.
        public var inode: UInt32
        /// Who has it, as far as who asks may know; `matd` leaves it to `mat`.
        @OrNull public var process: Int32?

        public init(
            kind: String, state: String, local: String, remote: String?, path: PeerReport.Path?, locator: String?, reason: String?, user: UInt32,
            inode: UInt32, process: Int32?
        ) {
            self.kind = kind
            self.state = state
            self.local = local
            self.remote = remote
            self.path = path
            self.locator = locator
            self.reason = reason
            self.user = user
            self.inode = inode
            self.process = process
        }
    }

    /// Programs of one control group, and the sockets of all programs of its kind.
    public struct Group: Codable, Hashable, Sendable {
        public var via: SteerRequest.Via
        public var homes: [String]
        /// SO_MARK of their sockets.
        public var mark: UInt32
        /// Control groups, by path.
        public var groups: [String]
        /// At most `shownMax`; there may be others.
        public var programs: [Program]
        /// Likewise.
        public var sockets: [Socket]
        /// How many programs and sockets there are beyond those.
        public var furtherPrograms: Int
        public var furtherSockets: Int

        /// Programs, and likewise sockets: what starts many of them must not cost the agent's other work its time.
        public static let shownMax = 500

        public init(
            via: SteerRequest.Via, homes: [String], mark: UInt32, groups: [String], programs: [Program], sockets: [Socket],
            furtherPrograms: Int = 0, furtherSockets: Int = 0
        ) {
            self.via = via
            self.homes = homes
            self.mark = mark
            self.groups = groups
            self.programs = programs
            self.sockets = sockets
            self.furtherPrograms = furtherPrograms
            self.furtherSockets = furtherSockets
        }
    }

    public var groups: [Group]

    public init(groups: [Group]) { self.groups = groups }
}
