import CLinux
import Foundation
import MATSignal
import Testing

@testable import MATRuntime

/// Files that are read and replaced, on a real file system: whose they are afterwards, and what is no file.
@Suite("Files")
final class FileTests {
    let directory = "/tmp/mat-files-\(getpid())-\(UInt32.random(in: 0 ... .max))"

    init() throws { try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false) }

    deinit { try? FileManager.default.removeItem(atPath: directory) }

    private func status(_ path: String) throws -> stat {
        var status = stat()
        try #require(lstat(path, &status) == 0, "\(path)")
        return status
    }

    private func make(_ name: String, _ text: String = "old\n") throws -> String {
        try text.write(toFile: "\(directory)/\(name)", atomically: false, encoding: .utf8)
        return "\(directory)/\(name)"
    }

    private var names: [String] { get throws { try FileManager.default.contentsOfDirectory(atPath: directory).sorted() } }

    @Test(
        "A replaced file keeps its owner, group, mode and attributes, and the link that led to it; nothing else is left", .enabled(if: geteuid() == 0)
    )
    func owner() throws {
        let (file, link) = (try make("zone"), "\(directory)/link")
        try #require(symlink("zone", link) == 0 && chown(file, 65_534, 65_533) == 0 && chmod(file, 0o664) == 0)
        // Not every file system has them.
        var value: UInt8 = 0
        let hasAttributes = setxattr(file, "user.mat", "1", 1, 0) == 0
        try TextFile.replace(link, with: "new\n", .kept(new: 0o600))
        let now = try status(file)
        #expect(now.st_uid == 65_534 && now.st_gid == 65_533 && now.st_mode & 0o7777 == 0o664)
        #expect(try status(link).st_mode & S_IFMT == S_IFLNK && TextFile.read(file) == "new\n")
        if hasAttributes { #expect(getxattr(file, "user.mat", &value, 1) == 1 && value == 0x31) }
        #expect(try names == ["link", "zone"])
        // What a program keeps for itself has the mode that it says.
        try TextFile.replace(link, with: "secret\n", mode: 0o600)
        let secret = try status(file)
        #expect(secret.st_uid == 65_534 && secret.st_gid == 65_533 && secret.st_mode & 0o7777 == 0o600)
    }

    @Test("A first file has the mode that it is made with, less what the umask takes")
    func first() throws {
        let before = umask(0o027)
        defer { umask(before) }
        try TextFile.replace("\(directory)/first", with: "1", .kept(new: 0o666))
        #expect(try status("\(directory)/first").st_mode & 0o7777 == 0o640)
    }

    @Test("What is no file is neither read nor replaced, without waiting for it, and stays what it is")
    func notFiles() throws {
        let pipe = "\(directory)/pipe"
        try #require(mkfifo(pipe, 0o600) == 0)
        var paths = [(pipe, "a FIFO"), (directory, "a directory")]
        let listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(listener) }
        let bound = try UnixSocket.withAddress("\(directory)/socket") { bind(listener, $0, $1) }
        try #require(bound == 0)
        paths.append(("\(directory)/socket", "a socket"))
        // As /dev/null, of our own.
        if geteuid() == 0 {
            try #require(mknod("\(directory)/null", S_IFCHR | 0o666, 0x103) == 0)
            paths.append(("\(directory)/null", "a device"))
        }
        let began = SystemClock.now().monotonic
        for (path, words) in paths {
            let kind = try status(path).st_mode & S_IFMT
            let read = #expect(throws: SystemError.self) { try TextFile.read(path) }
            #expect(read?.description == "read \(path): it is \(words), not a file")
            let replaced = #expect(throws: SystemError.self) { try TextFile.replace(path, with: "x", mode: 0o600) }
            #expect(replaced?.description == "write \(path): it is \(words), not a file")
            #expect(try status(path).st_mode & S_IFMT == kind)
        }
        let configured = #expect(throws: ConfigurationError.self) { try ConfigurationFile.read(path: pipe) }
        #expect(configured?.description.contains("\(pipe): it is a FIFO, not a file") == true)
        #expect(SystemClock.now().monotonic - began < .seconds(2))
    }

    @Test("A link to what is not there is not written through, and errors name the file that was given and no other")
    func errors() throws {
        try #require(symlink("nowhere", "\(directory)/dangling") == 0)
        let dangling = #expect(throws: SystemError.self) { try TextFile.replace("\(directory)/dangling", with: "x", mode: 0o600) }
        #expect(dangling?.description.hasPrefix("write \(directory)/dangling: it is a link to what does not exist") == true)
        let missing = #expect(throws: SystemError.self) { try TextFile.replace("\(directory)/none/file", with: "x", mode: 0o600) }
        #expect(missing?.description == "write \(directory)/none/file: No such file or directory")
        let long = try make("long", String(repeating: "x", count: 100))
        #expect(throws: SystemError.self) { try TextFile.read(long, octetsMax: 99) }
        #expect(try names == ["dangling", "long"])
    }

    @Test("Where anybody may put files, those of others are not written into", .enabled(if: geteuid() == 0))
    func shared() throws {
        let (mine, theirs) = (try make("mine"), try make("theirs"))
        try #require(chmod(directory, 0o1777) == 0 && chown(theirs, 65_534, 65_534) == 0)
        try TextFile.replace(mine, with: "new", mode: 0o600)
        let error = #expect(throws: SystemError.self) { try TextFile.replace(theirs, with: "secret", mode: 0o600) }
        #expect(error?.description.contains("in a directory where anybody may put files") == true)
        #expect(try TextFile.read(theirs) == "old\n")
    }

    @Test("What a program that died left behind goes with the next write of that file; what is younger, or another's, stays")
    func leftovers() throws {
        let file = try make("zone")
        let old = try make(".zone.0123456789abcdef.new")
        var times = [timeval(tv_sec: time(nil) - 7200, tv_usec: 0), timeval(tv_sec: time(nil) - 7200, tv_usec: 0)]
        for name in [".zone.1123456789abcdef.new", ".zone.old.new", "zone.new", ".other.0123456789abcdef.new"] { _ = try make(name) }
        for name in [".zone.old.new", "zone.new", ".other.0123456789abcdef.new"] { try #require(utimes("\(directory)/\(name)", &times) == 0) }
        try #require(utimes(old, &times) == 0)
        try TextFile.replace(file, with: "new", mode: 0o600)
        #expect(try names == [".other.0123456789abcdef.new", ".zone.1123456789abcdef.new", ".zone.old.new", "zone", "zone.new"])
    }

    @Test("A file that comes to nothing leaves the earlier one as it was")
    func discarded() throws {
        let file = try make("zone")
        do {
            let replacement = try FileReplacement(file, .kept(new: 0o600))
            try replacement.write("half".utf8)
        }
        #expect(try TextFile.read(file) == "old\n" && names == ["zone"])
    }

    @Test("A program that is killed while it writes leaves nothing beside the file, on whatever file system has files without names")
    func killed() throws {
        let file = try make("zone")
        let replacement = try FileReplacement(file, .kept(new: 0o600))
        try replacement.write("half".utf8)
        // What a signal that ends the program would leave.
        #expect(try names == ["zone"])
        try replacement.write(" and half\n".utf8)
        try replacement.commit()
        #expect(try names == ["zone"] && TextFile.read(file) == "half and half\n")
        let first = try FileReplacement("\(directory)/first", .fixed(0o600))
        try first.commit(isSynced: false)
        try first.write("followed".utf8)
        #expect(try names == ["first", "zone"] && TextFile.read("\(directory)/first") == "followed")
    }

    @Test("Paths that stand for what a process was given open are told from others")
    func own() {
        #expect(OwnDescriptor.number(of: "/dev/stdin") == 0 && OwnDescriptor.number(of: "/dev/stdout") == 1)
        #expect(OwnDescriptor.number(of: "/dev/fd/63") == 63 && OwnDescriptor.number(of: "/proc/self/fd/5") == 5)
        for path in ["/dev/null", "/dev/fd/", "/dev/fd/x", "stdin", "/tmp/dev/stdin"] { #expect(OwnDescriptor.number(of: path) == nil) }
    }
}
