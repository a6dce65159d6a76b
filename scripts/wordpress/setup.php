<?php
// Installs WordPress, with users, media and posts: php setup.php DEMO_FOLDER SAMPLES_FOLDER
list( , $demo_folder, $samples ) = $argv;
ini_set( 'display_errors', 'stderr' );
error_reporting( E_ALL & ~E_DEPRECATED );
define( 'WP_INSTALLING', true );
$_SERVER['HTTP_HOST'] = parse_url( json_decode( file_get_contents( "$demo_folder/settings.json" ) )->url, PHP_URL_HOST );

require "$demo_folder/www/wp-load.php";
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
require_once ABSPATH . 'wp-admin/includes/image.php';

function wp_mail() { // nobody is told about the demo
	return true;
}

function new_image_sizes() {
	return array( 'thumbnail', 'medium' );
}
add_filter( 'intermediate_image_sizes', 'new_image_sizes' );

wp_install( 'Cutline demo', 'admin', 'admin@example.org', false, '', 'admin' );
foreach ( get_posts( array( 'post_type' => array( 'post', 'page' ), 'post_status' => 'any', 'numberposts' => -1 ) ) as $post ) {
	wp_delete_post( $post->ID, true ); // the example posts of a new site
}
switch_theme( 'twentytwentythree' );
update_option( 'permalink_structure', '/%year%/%postname%/' );
update_option( 'blogdescription', 'Walks, boats and animals' );
flush_rewrite_rules( false );

// Users

$users = array();
foreach ( array( 'admin' => 'administrator', 'editor' => 'editor', 'author' => 'author', 'subscriber' => 'subscriber' ) as $name => $role ) {
	$id = username_exists( $name );
	if ( ! $id ) {
		$id = wp_create_user( $name, $name, "$name@example.org" );
	}
	$user = new WP_User( $id );
	$user->set_role( $role );
	// The block editor opens without its tour.
	update_user_meta( $id, 'wp_persisted_preferences', array(
		'core/edit-post' => array( 'welcomeGuide' => false, 'isComplementaryAreaVisible' => false ),
		'_modified'      => '2024-01-01T00:00:00.000Z',
	) );
	list( $password ) = WP_Application_Passwords::create_new_application_password( $id, array( 'name' => 'cutline' ) );
	$users[ $name ]   = array( 'password' => $name, 'application_password' => WP_Application_Passwords::chunk_password( $password ) );
	file_put_contents( "$demo_folder/$name.password", WP_Application_Passwords::chunk_password( $password ) . "\n" );
	chmod( "$demo_folder/$name.password", 0600 );
}
wp_set_current_user( username_exists( 'admin' ) );
kses_remove_filters();

require __DIR__ . '/content.php';

$media = demo_media( $samples );
$posts = demo_posts( $media );
file_put_contents( "$demo_folder/demo.json", json_encode( array(
	'url'   => home_url( '/' ),
	'login' => wp_login_url(),
	'users' => $users,
	'media' => $media,
	'posts' => $posts,
), JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES ) . "\n" );
