import Glibc
import MATSignal
import MappingMemory
import Synchronization
import Testing

@testable import IMS
@testable import IMSCore

/// What tests do to a store's file from outside.
enum StoreFile {
    struct Read {
        var mappings: [StoredMapping] = []
        var issued: [Certificate] = []
        var rows: [StoredRow] = []
        var unreadable: [String] = []
        var damage: [String] = []
    }

    static func read(_ path: String) throws -> Read {
        var read = Read()
        let reader = try MappingReader(path: path, isAlone: false) { part in
            read.mappings += part.mappings.stored.compactMap { $0 }
            read.issued += part.issued
            read.rows += part.rows
            read.unreadable += part.unreadable
        }
        defer { reader.close() }
        try reader.read()
        read.damage = reader.damage
        return read
    }

    static func size(_ path: String) -> Int {
        var status = stat()
        return stat(path, &status) == 0 ? Int(status.st_size) : 0
    }

    /// Overwrites a part of the file with octets that mean nothing.
    static func damage(_ path: String, at offset: Int, count: Int) throws {
        let descriptor = open(path, O_WRONLY)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        let octets = [UInt8](repeating: 0xA5, count: count)
        try #require(pwrite(descriptor, octets, count, off_t(offset)) == count)
    }

    static func copy(_ path: String, to target: String) throws {
        let source = open(path, O_RDONLY)
        try #require(source >= 0)
        defer { close(source) }
        let destination = open(target, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        try #require(destination >= 0)
        defer { close(destination) }
        var buffer = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = Glibc.read(source, &buffer, buffer.count)
            try #require(count >= 0)
            if count == 0 { return }
            try #require(write(destination, buffer, count) == count)
        }
    }
}

/// Collects what a store tells.
final class StoreListener: Sendable {
    struct Heard {
        var mappings: [StoredMapping] = []
        var unreadable: [String] = []
        var hasLoaded = false
        var outcomes: [StoreOutcome] = []
        var secrets: [[CookieSecret]] = []
        var unavailable: [String] = []
        var availableCount = 0
        var failed: [String] = []
    }

    private let state = Mutex(Heard())
    var heard: Heard { state.withLock { $0 } }

    func receive(_ event: StoreEvent) {
        state.withLock { heard in
            switch event {
            case .loaded(let contents):
                heard.mappings += contents.mappings.stored.compactMap { $0 }
                heard.unreadable += contents.unreadable
            case .loadEnded: heard.hasLoaded = true
            case .changed, .shared, .caughtUp, .left: break
            case .secrets(let secrets): heard.secrets.append(secrets)
            case .committed(let outcomes): heard.outcomes += outcomes
            case .unavailable(let reason): heard.unavailable.append(reason)
            case .available: heard.availableCount += 1
            case .failed(let text): heard.failed.append(text)
            }
        }
    }

    /// Waits until it holds; 20 seconds at most.
    func wait(_ what: String, _ isSo: (Heard) -> Bool, _ location: SourceLocation = #_sourceLocation) {
        for _ in 0..<2000 {
            if isSo(heard) { return }
            usleep(10_000)
        }
        Issue.record("\(what) did not happen: \(heard.unavailable) \(heard.failed)", sourceLocation: location)
    }
}
