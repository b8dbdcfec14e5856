// What imsd says at its control socket, and `mat ims ... --json` prints; see NodeReports.swift for what holds of keys and units.

/// What `mat ims status` asks.
public struct IMSStatusReport: Codable, Hashable, Sendable {
    public struct Prefix: Codable, Hashable, Sendable {
        public var prefix: String
        public var mobilePrefixes: [String]
        public var mappings: Int
        @OrNull public var mappingsMax: Int?
        public var updatesPerSecondMax: Int

        public init(prefix: String, mobilePrefixes: [String], mappings: Int, mappingsMax: Int?, updatesPerSecondMax: Int) {
            self.prefix = prefix
            self.mobilePrefixes = mobilePrefixes
            self.mappings = mappings
            self.mappingsMax = mappingsMax
            self.updatesPerSecondMax = updatesPerSecondMax
        }
    }

    public struct Key: Codable, Hashable, Sendable {
        /// 16 hexadecimal digits.
        public var id: String
        /// Base64.
        public var publicKey: String
        /// signing, previous or accepted.
        public var use: String
        /// How many depend on it: a key can go when none does.
        public var certificates: Int

        public init(id: String, publicKey: String, use: String, certificates: Int) {
            self.id = id
            self.publicKey = publicKey
            self.use = use
            self.certificates = certificates
        }
    }

    public struct Certificates: Codable, Hashable, Sendable {
        public var endingSoon: Int
        public var ended: Int
        public var revoked: Int

        public init(endingSoon: Int, ended: Int, revoked: Int) {
            self.endingSoon = endingSoon
            self.ended = ended
            self.revoked = revoked
        }
    }

    public struct Store: Codable, Hashable, Sendable {
        public var path: String
        @OrNull public var lastFailure: String?
        public var isLoading: Bool
        /// Why it takes no change.
        @OrNull public var unavailable: String?

        public init(path: String, lastFailure: String?, isLoading: Bool, unavailable: String?) {
            self.path = path
            self.lastFailure = lastFailure
            self.isLoading = isLoading
            self.unavailable = unavailable
        }
    }

    public struct Datagrams: Codable, Hashable, Sendable {
        public var received: UInt64
        public var passedToCore: UInt64
        public var lostBeforeCore: UInt64

        public init(received: UInt64, passedToCore: UInt64, lostBeforeCore: UInt64) {
            self.received = received
            self.passedToCore = passedToCore
            self.lostBeforeCore = lostBeforeCore
        }
    }

    /// Since the start. Messages are named as in the protocol, answers by message and code.
    public struct Counters: Codable, Hashable, Sendable {
        public var received: [String: UInt64] = [:]
        public var sent: [String: UInt64] = [:]
        public var answered: [String: [String: UInt64]] = [:]
        public var malformed: UInt64 = 0
        public var unknownTypes: UInt64 = 0
        public var dropped: UInt64 = 0
        public var putOff: UInt64 = 0
        public var droppedAtGate: UInt64 = 0
        public var verifications: UInt64 = 0
        public var pushesUnanswered: UInt64 = 0
        public var logLinesSuppressed: UInt64 = 0
        public var sendFailures: UInt64 = 0

        public init() {}
    }

    public var version = "?"
    public var uptimeMilliseconds: Int64 = 0
    public var port: UInt16 = 0
    public var prefixes: [Prefix] = []
    public var keys: [Key] = []
    public var canEnrol = false
    public var certificates = Certificates(endingSoon: 0, ended: 0, revoked: 0)
    public var mappingsExpired = 0
    public var mappingsWithdrawn = 0
    /// Where Prometheus may ask.
    @OrNull public var metrics: String? = nil
    public var store = Store(path: "?", lastFailure: nil, isLoading: false, unavailable: nil)
    public var mappings = 0
    /// Enrolled, and never registered.
    public var unseen = 0
    public var remembered = 0
    public var rememberedUnconfirmed = 0
    public var subscriptions = 0
    /// Home addresses that are bound to an endpoint here.
    public var bindings = 0
    /// Threads that check signatures.
    public var verifiers = 0
    public var verificationsPending = 0
    public var notifiesPending = 0
    public var pushesPending = 0
    /// Threads that receive.
    public var threads = 0
    public var mappingOctets = 0
    public var datagrams = Datagrams(received: 0, passedToCore: 0, lostBeforeCore: 0)
    public var counters = Counters()

    public init() {}
}

/// A mapping, or a home address that is enrolled and has never registered: then all that is known is its certificate.
public struct MappingReport: Codable, Hashable, Sendable {
    public struct Locator: Codable, Hashable, Sendable {
        /// A MoA or MoPre.
        public var moa: String
        public var preference: UInt8

        public init(moa: String, preference: UInt8) {
            self.moa = moa
            self.preference = preference
        }
    }

    /// An address and port where encapsulated packets go.
    public struct Endpoint: Codable, Hashable, Sendable {
        public var endpoint: String
        public var preference: UInt8

        public init(endpoint: String, preference: UInt8) {
            self.endpoint = endpoint
            self.preference = preference
        }
    }

    public struct Certificate: Codable, Hashable, Sendable {
        public var id: String
        /// The id of the key that signed it.
        public var issuer: String
        public var endsSoon: Bool
        public var notBeforeMilliseconds: UInt64
        public var notAfterMilliseconds: UInt64
        /// Base64.
        public var nodeKey: String

        public init(id: String, issuer: String, endsSoon: Bool, notBeforeMilliseconds: UInt64, notAfterMilliseconds: UInt64, nodeKey: String) {
            self.id = id
            self.issuer = issuer
            self.endsSoon = endsSoon
            self.notBeforeMilliseconds = notBeforeMilliseconds
            self.notAfterMilliseconds = notAfterMilliseconds
            self.nodeKey = nodeKey
        }
    }

    /// An address, or a mobile network's prefix.
    public var hoa: String
    public var locators: [Locator] = []
    /// Where the node takes encapsulated packets itself, and the relays at which it is bound; absent if there are none.
    public var endpoints: [Endpoint]?
    public var relays: [Endpoint]?
    public var sequence: UInt64?
    public var issuedMilliseconds: UInt64?
    public var expiresMilliseconds: UInt64?
    public var isExpired = false
    public var isWithdrawn = false
    /// Registered with this server, rather than remembered from its own.
    public var isRegisteredHere = false
    public var isRevoked = false
    public var isUnseen: Bool?
    /// Of one that is remembered.
    public var isConfirmed: Bool?
    /// Where it was registered from, and when that was last proven.
    public var updateSource: String?
    public var updatedAtMilliseconds: UInt64?
    /// The endpoint that it is bound to here; in the answer to `show` alone.
    public var boundAt: String?
    /// Who is told of changes; in the answer to `show` alone.
    public var subscribers: [String]?
    public var certificate: Certificate?

    public init(hoa: String) { self.hoa = hoa }
}

/// What `mat ims list` asks: a page.
public struct MappingListReport: Codable, Hashable, Sendable {
    /// All mappings that are held, and all home addresses that are enrolled and never registered, whatever is shown.
    public var total: Int
    public var unseen: Int
    public var mappings: [MappingReport]
    /// What to give as `after` for the next page.
    public var next: String?

    public init(total: Int, unseen: Int, mappings: [MappingReport], next: String?) {
        self.total = total
        self.unseen = unseen
        self.mappings = mappings
        self.next = next
    }
}

/// What was revoked. The answer comes when it is durable.
public struct RevocationReport: Codable, Hashable, Sendable {
    public var revoked: [String]
    /// Revoked before.
    public var already: [String]
    /// What to give as `after` for the next part.
    public var next: String?

    public init(revoked: [String] = [], already: [String] = [], next: String? = nil) {
        self.revoked = revoked
        self.already = already
        self.next = next
    }
}

/// A certificate that was issued.
public struct EnrolmentReport: Codable, Hashable, Sendable {
    /// Base64.
    public var certificate: String
    public var hoa: String
    /// As people write it: 24 for an IPv4 /24.
    public var prefixLength: UInt8
    public var notBeforeMilliseconds: UInt64
    public var notAfterMilliseconds: UInt64
    public var keyID: String

    public init(certificate: String, hoa: String, prefixLength: UInt8, notBeforeMilliseconds: UInt64, notAfterMilliseconds: UInt64, keyID: String) {
        self.certificate = certificate
        self.hoa = hoa
        self.prefixLength = prefixLength
        self.notBeforeMilliseconds = notBeforeMilliseconds
        self.notAfterMilliseconds = notAfterMilliseconds
        self.keyID = keyID
    }
}

/// What became of imported lines.
public struct ImportReport: Codable, Hashable, Sendable {
    public struct Skipped: Codable, Hashable, Sendable {
        public var what: String
        public var reason: String

        public init(what: String, reason: String) {
            self.what = what
            self.reason = reason
        }
    }

    public var taken: Int
    /// Held already.
    public var same: Int
    /// Something newer is held.
    public var older: Int
    public var skippedCount: Int
    /// The first of them.
    public var skipped: [Skipped]
    /// When the file was made; told by `mat`.
    public var exportedAtMilliseconds: UInt64?

    public init(taken: Int, same: Int, older: Int, skippedCount: Int, skipped: [Skipped], exportedAtMilliseconds: UInt64? = nil) {
        self.taken = taken
        self.same = same
        self.older = older
        self.skippedCount = skippedCount
        self.skipped = skipped
        self.exportedAtMilliseconds = exportedAtMilliseconds
    }
}

/// What imsd counts: as Prometheus reads it, and for programs.
public struct MetricsReport: Codable, Hashable, Sendable {
    public struct Family: Codable, Hashable, Sendable {
        public var name: String
        public var help: String
        /// counter, gauge or histogram.
        public var type: String
        public var samples: [Sample]

        public init(name: String, help: String, type: String, samples: [Sample]) {
            self.name = name
            self.help = help
            self.type = type
            self.samples = samples
        }
    }

    public struct Sample: Codable, Hashable, Sendable {
        public var name: String
        public var labels: [String: String]
        /// `null` if JSON has no such number.
        @OrNull public var value: Double?

        public init(name: String, labels: [String: String], value: Double) {
            self.name = name
            self.labels = labels
            self.value = value.isFinite ? value : nil
        }
    }

    public var text: String
    public var families: [Family]

    public init(text: String, families: [Family]) {
        self.text = text
        self.families = families
    }
}

/// A token that was made. The text is a secret, and told this once.
public struct TokenReport: Codable, Hashable, Sendable {
    public var token: String
    public var id: String

    public init(token: String, id: String) {
        self.token = token
        self.id = id
    }
}

/// Tokens, in the order in which they were made.
public struct TokensReport: Codable, Hashable, Sendable {
    public struct Token: Codable, Hashable, Sendable {
        public var id: String
        public var gives: [String]
        public var uses: UInt32
        @OrNull public var usesMax: UInt32?
        public var createdAtMilliseconds: UInt64
        @OrNull public var expiresAtMilliseconds: UInt64?
        @OrNull public var certificateMilliseconds: UInt64?
        public var renewal: Bool
        @OrNull public var revokedAtMilliseconds: UInt64?

        public init(
            id: String, gives: [String], uses: UInt32, usesMax: UInt32?, createdAtMilliseconds: UInt64, expiresAtMilliseconds: UInt64?,
            certificateMilliseconds: UInt64?, renewal: Bool, revokedAtMilliseconds: UInt64?
        ) {
            self.id = id
            self.gives = gives
            self.uses = uses
            self.usesMax = usesMax
            self.createdAtMilliseconds = createdAtMilliseconds
            self.expiresAtMilliseconds = expiresAtMilliseconds
            self.certificateMilliseconds = certificateMilliseconds
            self.renewal = renewal
            self.revokedAtMilliseconds = revokedAtMilliseconds
        }
    }

    public var tokens: [Token]

    public init(tokens: [Token]) { self.tokens = tokens }
}

/// Home addresses that were given, in order: to which key, when, by what, until when, and when their nodes were last seen.
public struct EnrolledReport: Codable, Hashable, Sendable {
    public struct Home: Codable, Hashable, Sendable {
        public var home: String
        /// Base64.
        public var publicKey: String
        /// The certificate's id, as `mat ims revoke --certificate` takes it.
        @OrNull public var certificate: String?
        /// "hand", "token ID" or "visit from HOA".
        public var by: String
        public var givenAtMilliseconds: UInt64
        /// The certificate's end.
        @OrNull public var validUntilMilliseconds: UInt64?
        public var renewal: Bool
        /// Of the last IMS Update.
        @OrNull public var lastSeenMilliseconds: UInt64?

        public init(
            home: String, publicKey: String, certificate: String?, by: String, givenAtMilliseconds: UInt64, validUntilMilliseconds: UInt64?,
            renewal: Bool, lastSeenMilliseconds: UInt64?
        ) {
            self.home = home
            self.publicKey = publicKey
            self.certificate = certificate
            self.by = by
            self.givenAtMilliseconds = givenAtMilliseconds
            self.validUntilMilliseconds = validUntilMilliseconds
            self.renewal = renewal
            self.lastSeenMilliseconds = lastSeenMilliseconds
        }
    }

    public var homes: [Home]
    /// Behind which the next page begins.
    @OrNull public var next: String?

    public init(homes: [Home], next: String?) {
        self.homes = homes
        self.next = next
    }
}
