import Foundation
import Testing

@testable import MATRuntime

@Suite("Following a file by its path", .timeLimit(.minutes(1)))
struct PathWatchTests {
    /// Paths below a directory of its own, and what is heard of one of them.
    private final class Place {
        let loop: EventLoop
        let root: String
        private var watch: PathWatch?

        init(_ watched: String, prepare: (Place) throws -> Void = { _ in }) throws {
            loop = try EventLoop()
            root = "/tmp/mat-watch-\(getpid())-\(UInt32.random(in: 0 ... .max))"
            try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: false)
            try prepare(self)
            watch = PathWatch(loop: loop, paths: [root + "/" + watched]) { [unowned self] in loop.stop() }
        }

        deinit { try? FileManager.default.removeItem(atPath: root) }

        func write(_ name: String, _ text: String) throws { try text.write(toFile: root + "/" + name, atomically: false, encoding: .utf8) }
        func link(_ name: String, to target: String) throws { #expect(symlink(target, root + "/" + name) == 0) }
        func make(_ name: String) throws { try FileManager.default.createDirectory(atPath: root + "/" + name, withIntermediateDirectories: false) }
        func rename(_ from: String, _ to: String) { #expect(Glibc.rename(root + "/" + from, root + "/" + to) == 0) }

        /// Whether the change is reported, and one that follows it as well.
        func hears(_ what: String, _ change: () throws -> Void) throws {
            try change()
            let watchdog = loop.schedule(after: .seconds(5)) { [unowned self] in
                Issue.record("not heard: \(what)")
                loop.stop()
            }
            try loop.run()
            loop.cancel(watchdog)
        }
    }

    @Test("It is heard when the file is written, replaced by a rename, taken away, and there again")
    func file() throws {
        let place = try Place("resolv.conf") { try $0.write("resolv.conf", "a") }
        try place.hears("written") { try place.write("resolv.conf", "b") }
        for round in 0..<2 {
            try place.hears("replaced \(round)") {
                try place.write("new", "c")
                place.rename("new", "resolv.conf")
            }
        }
        try place.hears("written after it was replaced") { try place.write("resolv.conf", "d") }
        try place.hears("removed") { #expect(unlink(place.root + "/resolv.conf") == 0) }
        try place.hears("made anew") { try place.write("resolv.conf", "e") }
    }

    @Test("It is heard behind a symbolic link, in a directory that comes later, and where the link points next")
    func links() throws {
        let place = try Place("resolv.conf") { try $0.link("resolv.conf", to: "run/resolve/stub.conf") }
        try place.hears("the directory comes") { try place.make("run") }
        try place.hears("the next one comes") { try place.make("run/resolve") }
        try place.hears("the file comes") { try place.write("run/resolve/stub.conf", "a") }
        try place.hears("it is written") { try place.write("run/resolve/stub.conf", "b") }
        try place.hears("the link points elsewhere") {
            try place.write("other.conf", "c")
            try place.link("next", to: place.root + "/other.conf")
            place.rename("next", "resolv.conf")
        }
        try place.hears("and that is written") { try place.write("other.conf", "d") }
    }

    @Test("Links that go round end somewhere")
    func round() throws {
        let place = try Place("a") {
            try $0.link("a", to: "b")
            try $0.link("b", to: "a")
        }
        #expect(PathWatch.places(on: place.root + "/a").count <= PathWatch.linksMax + 2)
        try place.hears("one of them is a file at last") {
            try place.write("c", "x")
            place.rename("c", "b")
        }
    }
}
