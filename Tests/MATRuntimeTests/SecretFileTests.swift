import Glibc
import Testing

@testable import MATRuntime

@Suite("Files with secrets, and the service manager")
struct SecretFileTests {
    @Test(
        "A secret counts if only its owner can read it, and the owner is the reader, root, or for root a daemon's user",
        arguments: [
            (0o600, 0, 0, true), (0o400, 0, 0, true), (0o600, 998, 998, true), (0o600, 0, 998, true), (0o600, 998, 0, true),
            (0o640, 0, 0, false), (0o604, 0, 0, false), (0o620, 998, 998, false), (0o600, 1000, 0, false), (0o600, 1000, 998, false),
            (0o600, 997, 998, false), (0o600, 1000, 1000, true),
        ] as [(mode_t, uid_t, uid_t, Bool)])
    func owners(mode: mode_t, owner: uid_t, reader: uid_t, isTaken: Bool) {
        #expect((SecretFile.objection("/etc/imsd/ims.key", mode: mode, owner: owner, reader: reader) == nil) == isTaken)
    }

    @Test("What is refused is told with the command that mends it")
    func remedies() {
        #expect(SecretFile.objection("/k", mode: 0o644, owner: 0, reader: 0) == "others may read /k (mode 644); run chmod 600 /k")
        #expect(
            SecretFile.objection("/k", mode: 0o600, owner: 4_000_000_001, reader: 0)
                == "/k belongs to user 4000000001, who could change it; run chown root /k")
    }

    @Test("A file that others may read is refused, and read once it is closed to them")
    func reading() throws {
        let path = "/tmp/mat-secret-\(getpid())"
        defer { unlink(path) }
        try TextFile.replace(path, with: "secret", mode: 0o600)
        #expect(try SecretFile.read(path) == "secret")
        chmod(path, 0o640)
        let error = #expect(throws: SecretFileError.self) { try SecretFile.read(path) }
        #expect(error?.description.hasSuffix("run chmod 600 \(path)") == true)
        unlink(path)
        let missing = #expect(throws: SecretFileError.self) { try SecretFile.read(path) }
        #expect(missing?.remedied { $0.errno == ENOENT ? "make it" : nil }.description.hasSuffix("; make it") == true)
    }

    @Test("What root makes in a daemon's directory becomes the daemon's", .enabled(if: geteuid() == 0))
    func owner() throws {
        let directory = "/tmp/mat-owner-\(getpid())"
        try #require(mkdir(directory, 0o700) == 0 && chown(directory, 65_534, 65_534) == 0)
        defer {
            unlink(directory + "/state")
            rmdir(directory)
        }
        try TextFile.replace(directory + "/state", with: "1", mode: 0o600)
        var status = stat()
        #expect(stat(directory + "/state", &status) == 0 && status.st_uid == 65_534 && status.st_gid == 65_534)
    }

    @Test("The service manager is told twice in its time, and only by the process that it watches")
    func watchdog() {
        #expect(ServiceManager.watchdogInterval(time: "30000000", process: nil, own: 7) == .seconds(15))
        #expect(ServiceManager.watchdogInterval(time: "30000000", process: "7", own: 7) == .seconds(15))
        #expect(ServiceManager.watchdogInterval(time: "30000000", process: "8", own: 7) == nil)
        for time in [nil, "", "0", "-5", "soon"] { #expect(ServiceManager.watchdogInterval(time: time, process: nil, own: 7) == nil) }
    }
}
