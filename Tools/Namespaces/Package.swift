// swift-tools-version: 6.2
import PackageDescription

// Network namespaces and the processes in them, for everything that tries the product out: the lab (Tools), the product's own tests, the
// benchmarks. A package of its own below all of these: the product's tests can't use the package Tools, which itself depends on the product,
// and a target in the product's package would be built by everybody who builds the product. Depends on nothing.

let package = Package(
    name: "mat-namespaces",
    products: [.library(name: "Namespaces", targets: ["Namespaces"])],
    targets: [
        .systemLibrary(name: "CNamespaces"),
        .target(name: "Namespaces", dependencies: ["CNamespaces"]),
    ],
    swiftLanguageModes: [.v6]
)

// As in the product's Package.swift: a warning ends the build where deploy/check or CI asks for it.
if Context.environment["MAT_STRICT"] != nil {
    for target in package.targets where target.type != .system {
        target.swiftSettings = (target.swiftSettings ?? []) + [.treatAllWarnings(as: .error)]
    }
}
