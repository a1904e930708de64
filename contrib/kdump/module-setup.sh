#!/bin/bash
# Module of dracut that puts corehaul-send into the images of kdump, and into no other: modules.d/98corehaul/module-setup.sh.

# mkdumprd of Red Hat sets IN_KDUMP. That of SUSE asks for the module kdump.
check() {
	[[ -x /usr/bin/corehaul-send && -e /etc/corehaul-send.toml ]] || return 1
	[[ -n $IN_KDUMP || " $dracutmodules $add_dracutmodules $force_add_dracutmodules " == *" kdump "* ]] || return 1
}

depends() {
	return 0
}

# An image without corehaul-send is better than none.
install() {
	if /usr/bin/corehaul-send embed "$initdir" --config /etc/corehaul-send.toml --release "$kernel"; then
		# kdump.sh of Red Hat runs what is there before it saves the dump, and goes on whatever comes of it.
		[[ -z $IN_KDUMP ]] || inst_simple /usr/share/corehaul-send/kdump-capture /etc/kdump/pre.d/corehaul
	else
		dwarn "corehaul: kdump will save dumps as without corehaul-send"
	fi
	return 0
}
