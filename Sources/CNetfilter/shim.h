// libmnl and libnftnl. The kernel's own netfilter and rtnetlink headers stay out: they pull in linux/in.h, whose structures
// contradict Glibc's. What is needed of them is in IMTKernel's KernelValues.
#pragma once
#include <libmnl/libmnl.h>
#include <libnftnl/batch.h>
#include <libnftnl/chain.h>
#include <libnftnl/common.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
